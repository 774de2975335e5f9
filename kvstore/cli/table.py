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
_KEYS = "Keys"
_COMMANDS = "kvstore.cli.commands."

COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "serve": Entry("kvstore.cli.serve", "serve", "Run one member of a cluster.", SERVER),
        "local": Entry(
            "kvstore.cli.local", "local", "Run a whole cluster on this machine.", SERVER
        ),
        "check": Entry("kvstore.cli.check", "check", "Check a stopped member's files.", SERVER),
        "put": Entry(_COMMANDS + "keys", "put", "Write a key.", _KEYS),
        "get": Entry(_COMMANDS + "keys", "get", "Read a key, or a range of keys.", _KEYS),
        "del": Entry(_COMMANDS + "keys", "delete", "Delete a key, or a range of keys.", _KEYS),
        "watch": Entry(_COMMANDS + "watch", "watch", "Show changes as they happen.", _KEYS),
        "compaction": Entry(
            _COMMANDS + "keys", "compaction", "Forget history before a revision.", _KEYS
        ),
    }
)
"""Command name to where it is, in the order in which help shows them."""
