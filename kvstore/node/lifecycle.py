"""Putting a member together, and taking it apart: everything that happens once.

`launch` opens the files and builds the parts; `Running.begin` starts them; `Running.end` stops
them in the reverse order. In between, `Running` is what the loop turns to for everything that
is not the core's: peers, snapshots, the background sweep.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore.node.bootstrap import Opened, open_member
from kvstore.node.errors import StopKind, StopReason
from kvstore.node.limits import STOP_TRANSFER_S, SWEEP_SLICE_REVISIONS
from kvstore.node.loop import MemberLoop
from kvstore.node.maintenance import Duties
from kvstore.node.member import MemberCore, Timing
from kvstore.node.members import MemberChanges
from kvstore.node.proposals import RequestIds
from kvstore.node.remote import LeaderCalls
from kvstore.node.snapshots import Snapshots
from kvstore.node.swaps import StoreSwaps
from kvstore.node.threads import Worker
from kvstore.storage.store import Store
from kvstore.watch.hub import WatchHub
from raft.config import Config
from raft.errors import RaftError
from raft.messages import Message
from raft.node import Persist, RaftNode

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Running", "launch")

_LOG = logging.getLogger(__name__)
_WATCH_RESPONSE_SLACK_BYTES = 512 * 1024
"""Beside the request limit, what a watch response may hold (etcd's figure)."""


async def launch(node: Node, fail: Callable[[StopReason], None]) -> Running:
    """Opens or creates the member's files and builds its parts; raises StartupError."""
    copies = Worker("kvstore-copy")
    try:
        opened = await open_member(node.config, copies)
    except BaseException:
        await copies.close()
        raise
    return Running(node, opened, copies, fail)


class Running:
    """The parts of a started member."""

    def __init__(
        self, node: Node, opened: Opened, copies: Worker, fail: Callable[[StopReason], None]
    ) -> None:
        config = node.config
        self.node = node
        self.opened = opened
        self.copies = copies
        self.cluster_id = opened.cluster_id
        self.member_id = opened.member_id
        self.timing = Timing(config.heartbeat_ms, max(2, config.election_ms // config.heartbeat_ms))
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._seeds = opened.seeds
        self._ended_by_removal = False
        self._sweep_at = 0.0
        self.peers = self._build_peers(node)
        self.core = self._build_core(node, opened)
        self.loop = MemberLoop(
            self.core,
            opened.wal,
            self,
            node.metrics,
            fail=self._failed,
            fsync=not config.unsafe_no_fsync,
        )
        self.calls = LeaderCalls(self.peers, lambda: self.core.leader_id, self.timing.request_s)
        self.snapshots = Snapshots(self)
        self.swaps = StoreSwaps(self)
        self.changes = MemberChanges(node, time.time)
        self.duties = Duties(node)

    @property
    def store(self) -> Store:
        """The open store; another object after an installed snapshot or a defragmentation."""
        return self.opened.store
