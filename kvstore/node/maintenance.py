"""What a member does by itself, beside serving: announce, compact, compare, watch the disk.

Each duty is a small loop of its own. All of them go through the log like any client's request
when they change something, so a duty that acts twice, or on two members, does no harm. Duties
of the leader sleep on the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from kvstore.errors import COMPACTED, EtcdError, detach
from kvstore.machine.command import CommandKind, member_attributes_payload
from kvstore.node.limits import (
    DISK_CHECK_S,
    MIN_FREE_DISK_BYTES,
    PUBLISH_RETRY_S,
    REMOVAL_CHECK_ELECTIONS,
    REVISION_COMPACTION_CHECK_S,
    VERSION_CHECK_S,
)
from kvstore.node.remote import HASH_KV, UNREADABLE_ANSWER
from kvstore.node.transport import Cluster
from kvstore.pb import rpc_pb2

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("CLUSTER_VERSION", "Duties", "PeriodicCompaction")

_LOG = logging.getLogger(__name__)

CLUSTER_VERSION = "3.6.0"
"""The protocol version that a cluster of this program agrees on."""


class PeriodicCompaction:
    """etcd's periodic mode: compact to the revision that was current one period ago.

    Revisions are noted every tenth of min(period, 1 h). The first compaction comes after one
    whole period, the next ones every min(period, 1 h).
    """

    def __init__(self, period_s: float) -> None:
        assert period_s > 0, period_s
        self.interval_s = min(period_s, 3600.0) / 10
        self._history: deque[tuple[float, int]] = deque()
        self._period_s = period_s
        self._compacted_at: float | None = None

    def note(self, now: float, revision: int) -> int | None:
        """Notes the present revision; returns one to compact to when it is time."""
        self._history.append((now, revision))
        target: int | None = None
        while self._history and self._history[0][0] <= now - self._period_s:
            target = self._history[0][1]
            if len(self._history) > 1 and self._history[1][0] <= now - self._period_s:
                self._history.popleft()
            else:
                break
        if target is None:
            return None
        since = None if self._compacted_at is None else now - self._compacted_at
        if since is not None and since < min(self._period_s, 3600.0):
            return None
        self._compacted_at = now
        return target

    def reset(self) -> None:
        """This member does not lead: what it noted does not count."""
        self._history.clear()
        self._compacted_at = None


class Duties:
    """The loops; `start` begins them, `stop` ends them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: list[asyncio.Task[None]] = []
        self.hash_checks = 0
        """Members whose hash was compared and found equal."""
        self.hash_not_compared = 0
        """Members that could not be compared (no answer, or another compaction state)."""
        self._alarming = False

    def start(self) -> None:
        """Begins every duty that the configuration asks for."""
        config = self._node.config
        self._spawn(self._publish, "publish")
        self._spawn(self._decide_version, "version")
        self._spawn(self._watch_disk, "disk")
        self._spawn(self._notice_removal, "removal")
        if config.auto_compaction_retention > 0:
            if config.auto_compaction_mode == "revision":
                self._spawn(self._compact_by_revision, "compaction")
            else:
                self._spawn(self._compact_by_time, "compaction")
        if self._hash_check_s > 0:
            self._spawn(self._compare_hashes, "hash check")
        if config.watch_progress_interval_s > 0:
            self._spawn(self._progress, "watch progress")

    def _spawn(self, duty: Callable[[], Awaitable[None]], name: str) -> None:
        async def run() -> None:
            while True:
                try:
                    await duty()
                    return
                except EtcdError as error:
                    detach(error)
                    _LOG.info("%s: %s; trying again", name, error)
                except Exception:
                    _LOG.exception("%s failed; trying again", name)
                await asyncio.sleep(1.0)

        self._tasks.append(asyncio.get_running_loop().create_task(run(), name=name))

    async def stop(self) -> None:
        """Ends all loops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- announcing ------------------------------------------------------------------------

    async def _publish(self) -> None:
        """Tells the cluster this member's name and client URLs, until it is known."""
        node = self._node
        wanted = (node.config.name, tuple(node.config.advertise_client_urls))
        payload = member_attributes_payload(node.member_id, *wanted)
        while True:
            member = node.machine.members.get(node.member_id)
            if member is not None:
                if (member.name, tuple(member.client_urls)) == wanted:
                    _LOG.info("published name %r and client URLs %s", *wanted)
                    return
                try:
                    await node.submit(CommandKind.MEMBER_ATTRIBUTES, payload)
                    continue
                except EtcdError as error:
                    detach(error)
                    _LOG.info("could not publish this member's attributes yet: %s", error)
            await asyncio.sleep(PUBLISH_RETRY_S if member is not None else 0.05)

    async def _decide_version(self) -> None:
        """The leader has the cluster agree on a protocol version."""
        node = self._node
        while True:
            if node.is_leader and node.machine.cluster_version != CLUSTER_VERSION:
                await node.submit(CommandKind.CLUSTER_VERSION, CLUSTER_VERSION.encode())
            await asyncio.sleep(VERSION_CHECK_S if node.machine.cluster_version else 0.1)

    async def _notice_removal(self) -> None:
        """Finds out that this member was removed while it was down or cut off.

        Nobody tells it: for the others it does not exist any more. So when it has had no leader
        for a while it asks them, and goes when most of them do not have it among the members.
        (One alone may lag behind the entry that added this member.)
        """
        node = self._node
        election_s = node.running.timing.election_s
        patience = 0
        while True:
            await asyncio.sleep(election_s)
            patience = 0 if node.leader_id else patience + 1
            if patience < REMOVAL_CHECK_ELECTIONS or node.member_id not in node.machine.members:
                continue
            patience = 0
            others = [m for m in node.machine.members.values() if m.id != node.member_id]
            absent = 0
            for member in others:
                cluster = await self._ask_cluster(member.peer_urls)
                if cluster is not None and cluster.cluster_id == node.cluster_id:
                    absent += all(each.id != node.member_id for each in cluster.members)
            if absent > len(others) // 2:
                node.running.retire()
                return

    async def _ask_cluster(self, urls: Sequence[str]) -> Cluster | None:
        for url in urls:
            try:
                return await self._node.running.network.fetch_cluster(url)
            except (OSError, EOFError, TimeoutError):
                continue
        return None

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(self._node.config.watch_progress_interval_s)
            self._node.watches.progress_tick()

    # ---- compaction ------------------------------------------------------------------------

    async def _compact_by_time(self) -> None:
        node = self._node
        notes = PeriodicCompaction(node.config.auto_compaction_retention)
        while True:
            await asyncio.sleep(notes.interval_s)
            if not node.is_leader:
                notes.reset()
                continue
            target = notes.note(node.clock(), node.revision)
            if target is not None:
                await self._compact(target)

    async def _compact_by_revision(self) -> None:
        node = self._node
        keep = int(node.config.auto_compaction_retention)
        while True:
            await asyncio.sleep(REVISION_COMPACTION_CHECK_S)
            if node.is_leader:
                await self._compact(node.revision - keep)

    async def _compact(self, revision: int) -> None:
        if revision <= max(self._node.machine.compact_revision, 0):
            return
        request = rpc_pb2.CompactionRequest(revision=revision)
        try:
            await self._node.submit(CommandKind.COMPACT, request.SerializeToString())
        except EtcdError as error:
            detach(error)
            if error != COMPACTED:
                _LOG.warning("auto-compaction to revision %d: %s", revision, error)
            return
        _LOG.info("auto-compaction to revision %d", revision)

    # ---- space -----------------------------------------------------------------------------

    async def _watch_disk(self) -> None:
        """Raises NOSPACE while there is still room to store the alarm itself."""
        node = self._node
        while True:
            free = node.free_disk_bytes()
            if free < MIN_FREE_DISK_BYTES:
                _LOG.warning("only %d MiB free on the data disk", free >> 20)
                await self.raise_alarm(rpc_pb2.NOSPACE, node.member_id)
            await asyncio.sleep(DISK_CHECK_S)

    def alarm_soon(self, alarm: rpc_pb2.AlarmType) -> None:
        """Raises an alarm for this member in the background; once at a time."""
        if self._alarming:
            return
        self._alarming = True

        async def run() -> None:
            try:
                await self.raise_alarm(alarm, self._node.member_id)
            except EtcdError as error:
                detach(error)
                _LOG.warning("could not raise the alarm: %s", error)
            finally:
                self._alarming = False

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.append(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        if task in self._tasks:
            self._tasks.remove(task)

    async def raise_alarm(self, alarm: rpc_pb2.AlarmType, member_id: int) -> None:
        """Activates an alarm through the log, unless it is active already."""
        node = self._node
        if (member_id, alarm) in node.alarms():
            return
        name = rpc_pb2.AlarmType.Name(alarm)
        _LOG.warning("raising alarm %s for member %x", name, member_id)
        request = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member_id, alarm=alarm
        )
        await node.submit(CommandKind.ALARM, request.SerializeToString())

    # ---- comparing members -----------------------------------------------------------------

    @property
    def _hash_check_s(self) -> float:
        """The shorter of the two intervals that are set; one comparison serves both."""
        config = self._node.config
        wanted = (config.compact_hash_check_s, config.corrupt_check_s)
        return min((interval for interval in wanted if interval > 0), default=0.0)

    async def _compare_hashes(self) -> None:
        while True:
            await asyncio.sleep(self._hash_check_s)
            if self._node.is_leader:
                await self.compare_hashes()

    async def compare_hashes(self) -> None:
        """Compares every member's hash with ours at one revision; a difference is an alarm.

        A member that cannot be compared (no answer, behind, compacted elsewhere) is counted and
        logged, never taken for equal.
        """
        node = self._node
        ours = await node.hash_kv(0)
        for member_id in sorted(node.machine.members):
            if member_id == node.member_id:
                continue
            try:
                answer = await node.calls.ask(member_id, HASH_KV, ours.hash_revision)
                if type(answer) is not list or len(answer) != len(ours):
                    raise UNREADABLE_ANSWER
            except EtcdError as error:
                detach(error)
                self.hash_not_compared += 1
                _LOG.warning("could not compare hashes with member %x: %s", member_id, error)
                continue
            _, theirs, compact_revision, hash_revision = answer
            if (compact_revision, hash_revision) != (ours.compact_revision, ours.hash_revision):
                self.hash_not_compared += 1
                _LOG.info("hashes of member %x are of another compaction; not compared", member_id)
            elif theirs != ours.hash:
                _LOG.critical(
                    "member %x differs from the leader at revision %d", member_id, hash_revision
                )
                await self.raise_alarm(rpc_pb2.CORRUPT, member_id)
            else:
                self.hash_checks += 1
