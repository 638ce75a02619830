"""Many processes that share one limit through a store, in virtual time: nothing but their limiters, and a judge of all."""
