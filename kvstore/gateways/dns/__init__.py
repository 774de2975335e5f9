"""DNS: every member answers for the services of the cluster, from what it has in memory."""
