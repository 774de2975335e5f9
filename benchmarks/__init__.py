"""Side-by-side measurements; each prints the figures that the documentation quotes."""
