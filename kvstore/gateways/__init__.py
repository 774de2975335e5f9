"""The other front doors."""
