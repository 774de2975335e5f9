"""kvstore: a Raft-replicated key-value registry that speaks the etcd v3 API."""

__version__ = "0.1.0"
