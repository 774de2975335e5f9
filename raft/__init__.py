"""The Raft consensus core: pure functions over messages; no I/O, no clock, no own randomness."""
