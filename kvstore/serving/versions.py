"""Which versions we are: our own, and that of the etcd protocol that we speak."""

from __future__ import annotations

import platform

from kvstore import __version__

__all__ = ("PROTOCOL_VERSION", "version_text")

PROTOCOL_VERSION = "3.6.0"
"""What Status and /version report; clients choose what they ask for by it."""


def version_text() -> str:
    """The lines of `--version`, in the shape of etcd's."""
    return "\n".join(
        (
            f"kvstore Version: {__version__}",
            f"etcd Protocol Version: {PROTOCOL_VERSION}",
            f"Python Version: {platform.python_version()}",
            f"OS/Arch: {platform.system().lower()}/{platform.machine()}",
        )
    )
