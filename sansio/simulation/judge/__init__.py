"""What must hold in every world, after every step: naive models beside one engine, which never ask it what to expect."""
