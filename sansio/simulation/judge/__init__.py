"""What must hold in every world, after every step: naive models beside one engine, made of facts and orders."""
