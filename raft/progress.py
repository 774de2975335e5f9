"""One follower as the leader sees it.

PROBE      one append at a time, until it is known where the logs meet
REPLICATE  a stream of appends, sent ahead of their acknowledgements, bounded by the window
SNAPSHOT   the entries it needs are compacted; wait until a snapshot has arrived

match < next always; match is what the follower has on disk, next what it is sent next.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

__all__ = ("Progress", "ProgressState")


class ProgressState(IntEnum):
    """How the leader talks to a follower."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    """Mutable; owned by the leader's state, thrown away with each change of leadership."""

    __slots__ = (
        "_window",
        "inflight_bytes",
        "known_commit",
        "match",
        "next",
        "poked",
        "probe_sent",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, *, match: int, next_index: int, recent_active: bool) -> None:
        assert match < next_index, f"match {match} must be below next {next_index}"
        self.match = match
        self.next = next_index
        self.state = ProgressState.PROBE
        self.recent_active = recent_active
        """Heard from since the last check-quorum round."""
        self.probe_sent = False
        """PROBE only: the one append is under way; a reply or a heartbeat reply clears it."""
        self.poked = False
        """The next flush sends an append even if it carries nothing: the follower may have lost
        one, and only a mismatch tells."""
        self.sent_commit = 0
        """The highest commit index that an append has told the follower."""
        self.known_commit = 0
        """The highest commit index that the follower has confirmed to know."""
        self._window: deque[tuple[int, int]] = deque()
        self.inflight_bytes = 0

    @property
    def inflight_count(self) -> int:
        """Append messages sent and not acknowledged."""
        return len(self._window)

    def is_full(self, max_count: int, max_bytes: int) -> bool:
        """Whether the window takes no further entries."""
        return len(self._window) >= max_count or self.inflight_bytes >= max_bytes

    def sent(self, last_index: int, size_bytes: int) -> None:
        """An append that ends at `last_index` has been sent in REPLICATE: count it, move on."""
        assert last_index >= self.next, f"sent up to {last_index}, but next is {self.next}"
        self.next = last_index + 1
        self._window.append((last_index, size_bytes))
        self.inflight_bytes += size_bytes

    def free_to(self, index: int) -> None:
        """The follower has acknowledged everything up to `index`."""
        window = self._window
        while window and window[0][0] <= index:
            self.inflight_bytes -= window.popleft()[1]

    def advance(self, index: int) -> bool:
        """The follower has `index` on disk; True when that is news."""
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        return True

    def fall_back(self, rejected: int, hint: int) -> bool:
        """An append behind `rejected` did not fit; the logs may meet at `hint`.

        False when the rejection is stale: about something already settled. Otherwise `next` moves
        back, never behind what the follower is known to have.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
            return True
        if self.state is not ProgressState.PROBE or self.next - 1 != rejected:
            return False
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self.probe_sent = False
        return True

    def become_probe(self, next_index: int | None = None) -> None:
        """Back to one append at a time, from `next_index` or right behind `match`."""
        self._enter(ProgressState.PROBE)
        self.next = max(self.match + 1, next_index or 0)

    def become_replicate(self) -> None:
        """The logs meet at `match`: stream from there."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self) -> None:
        """Nothing but heartbeats until the snapshot has arrived or failed."""
        self._enter(ProgressState.SNAPSHOT)

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = False
        self.poked = False
        self.sent_commit = 0
        self._window.clear()
        self.inflight_bytes = 0
