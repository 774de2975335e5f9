"""Plain HTTP: health, version and metrics."""
