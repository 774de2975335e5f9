"""From applied changes to watchers."""
