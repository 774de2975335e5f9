"""What the registry promises, measured on a cluster of three members on this machine."""
