"""A deterministic simulator of whole clusters, its faults, and the invariants it checks."""
