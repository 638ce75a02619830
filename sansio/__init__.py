"""Pure core."""
