"""What watching needs to know of the state machine: three protocols, no import of it.

`kvstore.machine` satisfies them; tests use a model of a few lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

__all__ = ("DELETE", "PUT", "Change", "History", "View")

PUT: Final = 0
DELETE: Final = 1


class Change(Protocol):
    """One key changed at one revision."""

    @property
    def revision(self) -> int: ...

    @property
    def kind(self) -> int:
        """PUT or DELETE."""

    @property
    def key(self) -> bytes: ...

    @property
    def kv(self) -> bytes:
        """Encoded mvccpb.KeyValue; of a deletion only key and mod_revision."""

    @property
    def created(self) -> bool:
        """A put that made the key (version 1): there is no previous value."""


class View(Protocol):
    """A consistent reading of the store, pinned until closed."""

    @property
    def revision(self) -> int: ...

    @property
    def compact_revision(self) -> int:
        """History below this revision is gone; -1 when there was no compaction."""

    def changes(self, start_revision: int, stop_revision: int) -> Iterator[Change]:
        """Every change with start <= revision < stop, ascending, whole revisions.

        `start_revision` is never below `compact_revision`; changes at that very revision
        are still there (I36).
        """

    def previous(self, key: bytes, revision: int) -> bytes | None:
        """The encoded KeyValue of `key` as of `revision` (>= compact_revision), or None."""

    def close(self) -> None: ...


class History(Protocol):
    """The committed state; what it answers never goes back."""

    @property
    def revision(self) -> int: ...

    def view(self) -> View: ...
