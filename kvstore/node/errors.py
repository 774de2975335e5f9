"""Why a member cannot start, or had to stop: sentences for people.

Each message says what is wrong, where, and what to do. Errors that answer a client's request
are in `kvstore.errors`; these here end the process.
"""

# ruff: noqa: N818  (an error is named by what happened)
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = (
    "BadConfiguration",
    "ClusterUnreachable",
    "DataDirUnusable",
    "ForeignDataDir",
    "NotAMember",
    "StartupError",
    "StopKind",
    "StopReason",
)


class StartupError(Exception):
    """The member cannot start; the message is meant for the operator."""


class BadConfiguration(StartupError):
    """The settings contradict each other or the cluster."""


class ClusterUnreachable(StartupError):
    """No member of the existing cluster answered."""


class NotAMember(StartupError):
    """The cluster does not know this member, or has removed it."""


class ForeignDataDir(StartupError):
    """The data directory belongs to another cluster or another member."""


class DataDirUnusable(StartupError):
    """The data directory cannot be trusted; nothing was changed in it."""


class StopKind(Enum):
    """Why a running member stopped."""

    ASKED = "asked"
    REMOVED = "removed"
    DISK = "disk"
    STORE = "store"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class StopReason:
    """What ended the member; `fatal` means the process must exit with a failure code at once."""

    kind: StopKind
    message: str

    @property
    def fatal(self) -> bool:
        """True when nothing of this process may be trusted to go on."""
        return self.kind in (StopKind.DISK, StopKind.STORE, StopKind.BUG)
