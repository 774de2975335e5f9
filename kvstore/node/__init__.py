"""One running member of a cluster."""
