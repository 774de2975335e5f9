"""What storage can fail with; every message says what happened, where, and what to do.

Whose fault and what next: `DiskFailed`, `StoreCorrupt` and `WalCorrupt` end the process (after a
failed write or sync nothing that the page cache says may be believed); `StoreFull` and
`CopyStopped` leave everything as it was and may be tried again; `DirectoryLocked` and
`WalMissing` are the operator's to resolve. None of them would strike every replica alike.
"""

# Named after what happened, as the layers above speak of it, without an Error at the end.
# ruff: noqa: N818

from __future__ import annotations

from pathlib import Path

__all__ = (
    "REPLACE_MEMBER",
    "CopyStopped",
    "DirectoryLocked",
    "DiskFailed",
    "SnapshotCorrupt",
    "StorageError",
    "StoreCorrupt",
    "StoreFailed",
    "StoreFull",
    "WalCorrupt",
    "WalExists",
    "WalMissing",
)

REPLACE_MEMBER = (
    "Do not edit or truncate the log. Replace this member: on a healthy member run "
    "`member remove` for it, move its data directory aside, run `member add`, and start it "
    "empty with --initial-cluster-state=existing."
)
"""The advice for a member whose own promises can no longer be read."""


class StorageError(Exception):
    """The base of everything below."""


class DiskFailed(StorageError):
    """A file operation failed. The process must end: nothing after it can be relied on."""

    def __init__(self, action: str, path: Path | str, why: str, *, errno: int = 0) -> None:
        super().__init__(
            f"{action} failed: {why} (file {path}). Check the disk and its free space, then "
            "start the process again; it trusts only what it reads back."
        )
        self.action = action
        self.path = Path(path)
        self.errno = errno


class _Damaged(StorageError):
    """Something on disk is not what was written: which file, from which byte on, and why."""

    def __init__(self, path: Path | str, offset: int, why: str, advice: str) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {why}. {advice}")
        self.path = Path(path)
        self.offset = offset
        self.why = why
        self.advice = advice


class WalCorrupt(_Damaged):
    """The log lost or changed something that may have been acknowledged. Never cut it."""

    def __init__(
        self, path: Path | str, offset: int, why: str, advice: str = REPLACE_MEMBER
    ) -> None:
        super().__init__(path, offset, why, advice)


class WalMissing(StorageError):
    """There is no log in the directory; `remains` is what shows that there was one."""

    def __init__(self, directory: Path | str, remains: Path | str | None = None) -> None:
        shown = "." if remains is None else f", but {remains} shows that a member was here."
        super().__init__(
            f"no log segment in {directory}{shown} Without its log a member no longer knows what "
            "it voted for. If the directory was moved, deleted or is not mounted (see --wal-dir), "
            "put it back and start again. If an interrupted `snapshot restore` left this, run it "
            "again into an empty data directory. If the log is lost, replace this member: on a "
            "healthy member run `member remove` for it, move its data directory aside, run "
            "`member add`, and start it empty with --initial-cluster-state=existing."
        )


class WalExists(StorageError):
    """A log was to be created where one already stands."""

    def __init__(self, directory: Path | str) -> None:
        super().__init__(
            f"{directory} already holds a log. Open it instead of creating one, or choose an "
            "empty data directory."
        )


class SnapshotCorrupt(_Damaged):
    """A snapshot file does not check out; an older one, or the leader, must serve."""

    def __init__(self, path: Path | str, offset: int, why: str) -> None:
        super().__init__(
            path,
            offset,
            why,
            "Move the file aside; an older snapshot or the leader's will be used instead.",
        )


class StoreCorrupt(StorageError):
    """A record of the store fails its checksum, or the engine found its file damaged."""

    def __init__(self, path: Path | str, where: str, why: str) -> None:
        super().__init__(
            f"the store {path} is damaged in {where}: {why}. The process must end and set the "
            "file aside; the next start rebuilds it from the newest snapshot and the log."
        )
        self.path = Path(path)
        self.where = where


class StoreFull(StorageError):
    """No room for the write transaction; it was rolled back whole."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(
            f"the store {path} is full: {why}. Nothing of the transaction was kept. Free disk "
            "space or raise the quota, compact and defragment, then disarm the alarm."
        )


class StoreFailed(StorageError):
    """The engine failed for another reason; the transaction was rolled back whole."""

    def __init__(self, path: Path | str, action: str, why: str) -> None:
        super().__init__(
            f"{action} failed in the store {path}: {why}. Nothing of the transaction was kept; "
            "check the disk and start the process again."
        )


class CopyStopped(StorageError):
    """A copy was abandoned because its caller asked for it; what had been written is gone."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"the copy to {path} was stopped on request; start it again if needed.")


class DirectoryLocked(StorageError):
    """Another process runs on this directory."""

    def __init__(self, directory: Path | str, holder: str) -> None:
        super().__init__(
            f"{directory} is in use by process {holder}. Stop that process, or give this one "
            "another --data-dir."
        )
