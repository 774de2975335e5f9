"""The table of subcommands: where each one is, and what the list of commands says about it.

A command's module is imported only when the command is used, so that `kvstore get` does not
load a server, nor `kvstore serve` a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ("COMMANDS", "SERVER", "Entry")


class Entry(NamedTuple):
    """One subcommand."""

    module: str
    attribute: str
    """The click command in that module."""
    help: str
    section: str


SERVER = "Server"
_SERVICES = "Services"
_KEYS = "Keys"
_LEASES = "Leases, locks, elections"
_SERVICES = "Services"
_CLUSTER = "Cluster"
_TOOLS = "Tools"
_COMMANDS = "kvstore.cli.commands."

COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "serve": Entry("kvstore.cli.serve", "serve", "Run one member of a cluster.", SERVER),
        "local": Entry(
            "kvstore.cli.local", "local", "Run a whole cluster on this machine.", SERVER
        ),
        "service": Entry(
            _COMMANDS + "service",
            "service",
            "Services and their instances: register, find, watch, drain.",
            _SERVICES,
        ),
        "put": Entry(_COMMANDS + "keys", "put", "Write a key.", _KEYS),
        "get": Entry(_COMMANDS + "keys", "get", "Read a key, or a range of keys.", _KEYS),
        "del": Entry(_COMMANDS + "keys", "delete", "Delete a key, or a range of keys.", _KEYS),
        "watch": Entry(_COMMANDS + "watch", "watch", "Show changes as they happen.", _KEYS),
        "compaction": Entry(
            _COMMANDS + "keys", "compaction", "Forget history before a revision.", _KEYS
        ),
        "txn": Entry(
            _COMMANDS + "txn", "txn", "Several operations in one, if conditions hold.", _KEYS
        ),
        "lease": Entry(_COMMANDS + "lease", "lease", "Grant, renew and revoke leases.", _LEASES),
        "lock": Entry(
            _COMMANDS + "sync", "lock", "Hold a lock, or run a command under it.", _LEASES
        ),
        "elect": Entry(
            _COMMANDS + "sync", "elect", "Stand for leader, or watch who leads.", _LEASES
        ),
        "agent": Entry(
            _COMMANDS + "agent", "agent", "Keep programs of any language registered.", _SERVICES
        ),
        "member": Entry(_COMMANDS + "member", "member", "Members of the cluster.", _CLUSTER),
        "endpoint": Entry(
            _COMMANDS + "endpoint", "endpoint", "How single members are doing.", _CLUSTER
        ),
        "alarm": Entry(_COMMANDS + "endpoint", "alarm", "List and clear alarms.", _CLUSTER),
        "defrag": Entry(_COMMANDS + "endpoint", "defrag", "Give unused space back.", _CLUSTER),
        "move-leader": Entry(
            _COMMANDS + "endpoint", "move_leader", "Have another member lead.", _CLUSTER
        ),
        "snapshot": Entry(
            _COMMANDS + "snapshot", "snapshot", "Save, inspect and restore backups.", _CLUSTER
        ),
        "check": Entry(
            "kvstore.cli.check",
            "check",
            "Check a stopped member's files, or how a cluster performs.",
            _TOOLS,
        ),
        "make-mirror": Entry(
            _COMMANDS + "mirror", "make_mirror", "Keep another cluster in step.", _TOOLS
        ),
        "version": Entry(_COMMANDS + "about", "version", "Print the versions.", _TOOLS),
        "completion": Entry(
            _COMMANDS + "about", "completion", "Print a shell's completion script.", _TOOLS
        ),
    }
)
"""Command name to where it is, in the order in which help shows them."""
