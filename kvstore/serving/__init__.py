"""Around the node: flags, configuration, logs, and a cluster of local processes."""
