"""What a layer on top of a member is told, and asked: the member itself knows nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvstore.machine import Change

__all__ = ("Overlay",)


class Overlay(Protocol):
    """Everything is called on the loop, in the middle of the member's work.

    So nothing here waits, raises, or takes long; what takes long is put off.
    """

    def changed(self, changes: Sequence[Change] | None) -> None:
        """These changes were committed here, ascending; nobody has been answered yet.

        None: there were too many to be listed, or the whole state was replaced. It can then be
        read anew.
        """

    def members_changed(self) -> None:
        """The cluster's members are others, or told otherwise, as of what was applied here."""

    def led(self, leads: bool) -> None:
        """This member begins (True) or ends to lead."""

    def renewed(self, lease_ids: Sequence[int], now: float) -> None:
        """These leases were renewed at `now`; only told while this member leads."""

    def held(self, lease_id: int) -> bool:
        """Whether a lease whose time is over is to go on, and can still be renewed.

        Only asked while this member leads.
        """
