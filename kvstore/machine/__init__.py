"""The replicated state machine: MVCC keys, txns, leases, members, alarms."""
