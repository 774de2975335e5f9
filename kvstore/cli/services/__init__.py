"""How services and their instances are read from a command line, and how they are shown."""
