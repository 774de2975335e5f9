"""Fault points of the storage: what is armed to fail there fails as the disk or the store does."""

from __future__ import annotations

import errno
from pathlib import Path

from kvstore import faults
from kvstore.storage.errors import DiskFailed, StoreFailed, StoreFull

__all__ = ("disk_point", "store_point")


def disk_point(name: str, path: Path | str) -> None:
    """A point of the log or of a snapshot; raises DiskFailed."""
    try:
        faults.point(name)
    except OSError as error:
        action = f"passing {name}"
        raise DiskFailed(action, path, error.strerror or "", errno=error.errno or 0) from error


def store_point(name: str, path: Path | str) -> None:
    """A point of the store; raises StoreFailed, or StoreFull when space is what is missing."""
    try:
        faults.point(name)
    except OSError as error:
        why = error.strerror or ""
        if error.errno == errno.ENOSPC:
            raise StoreFull(path, f"passing {name}: {why}") from error
        raise StoreFailed(path, f"passing {name}", why) from error
