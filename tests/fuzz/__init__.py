"""Hostile bytes for every parser and every request converter; see `targets`."""
