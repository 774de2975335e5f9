"""The table of subcommands: where each one is, and what the list of commands says about it.

A command's module is imported only when the command is used, so that `kvstore get` does not
load a server, nor `kvstore serve` a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ("COMMANDS", "Entry")


class Entry(NamedTuple):
    """One subcommand."""

    module: str
    attribute: str
    """The click command in that module."""
    help: str
    section: str


_SERVER = "Server"

COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "serve": Entry("kvstore.cli.serve", "serve", "Run one member of a cluster.", _SERVER),
        "local": Entry(
            "kvstore.cli.local", "local", "Run a whole cluster on this machine.", _SERVER
        ),
        "check": Entry("kvstore.cli.check", "check", "Check a stopped member's files.", _SERVER),
    }
)
"""Command name to where it is, in the order in which help shows them."""
