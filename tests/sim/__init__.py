"""A whole cluster in one process: virtual disk, network, clock and clients, all from one seed."""
