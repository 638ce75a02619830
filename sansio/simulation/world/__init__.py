"""Virtual time and what happens in it: callers, engines, a network, a vault, and what goes wrong with them."""
