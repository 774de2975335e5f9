"""Checks that the cluster runs: for instances that no agent and no library keeps registered.

    /kvstore/checkers/<member> (leased) ─► who takes part ─► each instance has one of them
    its checks ─► findings ─► what differs from the stored results is written down
                └► its heartbeats, for as long as it is registered

Rules:
1. Members that take part say so by a leased key, so all of them see the same members at the same
   revision. One that dies is missed after CHECKER_TTL_S, one that stops takes its key away.
2. Who is responsible sends the heartbeats, whatever the checks find: a check that fails makes an
   instance DOWN, it does not remove it.
3. Two members that check the same for a moment do no harm: a result that is known is no change.
   None that checks is what must not last: so what is ours is compared anew with every change.
4. Targets come from whoever may register an instance: see `kvstore.checks.reach`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kvstore.checks.probes import Prober, Target
from kvstore.checks.reach import Network, Reach
from kvstore.checks.scheduler import Scheduler
from kvstore.checks.spec import Check, distinct
from kvstore.checks.tally import Finding, Standing, Tally
from kvstore.errors import EtcdError
from kvstore.machine import ANY_REVISION, BatchAction, BatchItem
from kvstore.registry import limits
from kvstore.registry.catalog import Catalog, Delta, Entry
from kvstore.registry.model import Instance, Status
from kvstore.registry.names import InstanceName, checker_key
from kvstore.registry.service import RegistryService
from kvstore.registry.sharding import responsible
from kvstore.registry.times import rfc3339

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Checking",)

_LOG = logging.getLogger(__name__)
_HAS_CHECKS: Final = b'"checks":'
"""Instances without this in their JSON need not be read."""


class _Duty:
    """One instance that this member checks."""

    def __init__(self, entry: Entry, instance: Instance) -> None:
        self.name = entry.name
        self.lease = entry.lease
        self.ttl_s = instance.ttl_s
        self.checks = distinct(instance.checks)
        self.target = Target(instance.address, instance.port)
        self.beat_at = 0.0
        results = _stored_results(instance)
        self.tallies = [
            Tally(_standing(results.get(check.title, instance.reported))) for check in self.checks
        ]
        self.findings: list[Finding | None] = [None] * len(self.checks)
        self.is_new = not results
        """Nobody has checked it yet."""

    def fits(self, entry: Entry, instance: Instance) -> bool:
        """It is still about the same: only results have changed, or what checks do not use."""
        return (self.lease, self.ttl_s, self.checks, self.target) == (
            entry.lease,
            instance.ttl_s,
            distinct(instance.checks),
            (instance.address, instance.port),
        )

    def news(self, instance: Instance) -> list[tuple[Check, Status, Finding]]:
        """Results that are not stored; the bad ones first, since the worst one counts."""
        if any(tally.standing is Standing.STARTING for tally in self.tallies):
            return []  # it is wanted only when every check has passed once
        stored = _stored_results(instance)
        found = [
            (check, Status(tally.standing.value), finding)
            for check, tally, finding in zip(self.checks, self.tallies, self.findings, strict=True)
            if finding is not None and stored.get(check.title) != tally.standing.value
        ]
        return sorted(found, key=lambda each: each[1] is Status.UP)


def _stored_results(instance: Instance) -> dict[str, Status]:
    """What the registry knows of an instance's checks: a status for each name."""
    results = (instance.check or {}).get("results")
    if not isinstance(results, Mapping):
        return {}
    return {
        name: Status(told["status"])
        for name, told in results.items()
        if isinstance(told, Mapping) and told.get("status") in Status.__members__
    }


def _standing(status: Status) -> Standing:
    """Where a check stands that somebody else has run until now."""
    try:
        return Standing(status.value)
    except ValueError:
        return Standing.STARTING


class Checking:
    """One member's part; `start` and `stop` it."""

    def __init__(
        self,
        node: Node,
        catalog: Catalog,
        service: RegistryService,
        networks: Sequence[Network],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`networks`: where checks may connect to."""
        self._node = node
        self._catalog = catalog
        self._service = service
        self._chance = chance
        self._prober = Prober(Reach(networks))
        self._scheduler = Scheduler(self._prober)
        self._checked: dict[InstanceName, None] = {}
        """Every instance that has checks, whoever runs them."""
        self._duties: dict[InstanceName, _Duty] = {}
        self._fresh: dict[InstanceName, None] = {}
        """Instances that are new or changed, and not looked at yet."""
        self._anew = True
        """Everything may have changed."""
        self._members: frozenset[int] = frozenset()
        """Who took part when the duties were shared out."""
        self._lease = 0
        """That our own key is on; 0: it has to be put."""
        self._beat_at = 0.0
        self._news: dict[InstanceName, None] = {}
        self._woken = asyncio.Event()
        """There are news."""
        self._tasks: list[asyncio.Task[None]] = []
        self._subscription = catalog.subscribe(self._changed)

    @property
    def duties(self) -> frozenset[InstanceName]:
        """The instances that this member checks."""
        return frozenset(self._duties)

    def start(self) -> None:
        """Takes part from now on."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._run(), name="checking"),
            loop.create_task(self._tell(), name="check results"),
        ]

    async def stop(self) -> None:
        """Checks no more, and says so, so that others take over at once."""
        self._subscription.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._scheduler.close()
        await self._prober.close()
        if self._lease:
            with contextlib.suppress(EtcdError, TimeoutError):
                async with asyncio.timeout(limits.CHECKER_LEAVE_S):
                    await self._node.submit_batch([self._item(BatchAction.DELETE)])

    # ---- taking part -----------------------------------------------------------------------

    async def _run(self) -> None:
        await self._catalog.wait_ready()
        while True:
            try:
                if not self._lease and not self._node.is_learner:
                    await self._join()
                await self._share_out()
                self._beat()
            except EtcdError as error:
                _LOG.info("checking: %s; trying again", error)
            except Exception:
                _LOG.exception("checking failed; trying again")
            await asyncio.sleep(limits.CHECKING_TICK_S)

    async def _join(self) -> None:
        lease = self._node.new_lease_id()
        await self._node.submit_batch([self._item(BatchAction.PUT_NEW_LEASE, lease)])
        self._lease = lease

    def _item(self, action: BatchAction, lease: int = 0) -> BatchItem:
        """Our own key."""
        value = self._node.config.name.encode() if lease else b""
        key = checker_key(self._node.member_id)
        return BatchItem(
            key, ANY_REVISION, action, value, lease, limits.CHECKER_TTL_S if lease else 0
        )

    # ---- who checks what -------------------------------------------------------------------

    def _changed(self, deltas: Sequence[Delta] | None) -> None:
        """The catalog has changed."""
        if deltas is None:
            self._anew = True
            return
        for delta in deltas:
            name = delta.name
            if name in self._checked or (
                delta.after is not None and _HAS_CHECKS in delta.after.value
            ):
                self._fresh[name] = None

    async def _share_out(self) -> None:
        """Takes up what is ours, and gives up what is not; some hundred in a turn."""
        members = self._catalog.checkers
        if self._anew:
            self._anew = False
            self._fresh.update(self._checked)
            for known in list(self._catalog.services.values()):
                for entry in list(known.entries.values()):
                    if _HAS_CHECKS in entry.value:
                        self._fresh[entry.name] = None
                await asyncio.sleep(0)
        if members != self._members:
            _LOG.info("members that run checks: %s", ", ".join(f"{m:x}" for m in sorted(members)))
            self._members = members
            self._fresh.update(self._checked)
        left = limits.KEEPER_SLICE_ITEMS
        for name in list(self._fresh):
            self._fresh.pop(name, None)
            self._consider(name)
            left -= 1
            if not left:
                left = limits.KEEPER_SLICE_ITEMS
                await asyncio.sleep(0)

    def _consider(self, name: InstanceName) -> None:
        """Compares what is ours with what we do about one instance."""
        entry = self._catalog.entry(name)
        instance = entry.instance if entry is not None and entry.owned else None
        if entry is None or instance is None or not instance.checks:
            self._checked.pop(name, None)
            self._give_up(name)
            return
        self._checked[name] = None
        if responsible(name, self._members) != self._node.member_id:
            self._give_up(name)
            return
        duty = self._duties.get(name)
        if duty is None or not duty.fits(entry, instance):
            self._give_up(name)
            self._take_up(_Duty(entry, instance))
        elif duty.news(instance):
            self._tell_of(name)

    def _take_up(self, duty: _Duty) -> None:
        self._duties[duty.name] = duty
        for index, check in enumerate(duty.checks):
            # Those of a member that is gone must not all begin at once; a new one is wanted soon.
            spread_s = limits.CHECKING_SOON_S if duty.is_new else check.interval_s
            self._scheduler.add(
                (duty.name, index),
                check,
                duty.target,
                partial(self._told, duty, index),
                tally=duty.tallies[index],
                first_after_s=spread_s * self._chance(),
            )

    def _give_up(self, name: InstanceName) -> None:
        duty = self._duties.pop(name, None)
        if duty is not None:
            for index in range(len(duty.checks)):
                self._scheduler.remove((name, index))

    # ---- heartbeats ------------------------------------------------------------------------

    def _beat(self) -> None:
        """Renews what is due: our own key's lease, and those of the instances."""
        now = self._node.clock()
        due = [duty for duty in self._duties.values() if now >= duty.beat_at]
        for duty in due:
            jitter = 1 + limits.CHECKING_JITTER * (2 * self._chance() - 1)
            duty.beat_at = now + duty.ttl_s / limits.BEATS_PER_TTL * jitter
        own: list[int] = []
        if self._lease and now >= self._beat_at:
            self._beat_at = now + limits.CHECKER_TTL_S / limits.BEATS_PER_TTL
            own = [self._lease]
        size = limits.CHECKING_RENEWALS
        for start in range(0, max(len(due), len(own)), size):
            some = due[start : start + size]
            leases = own + [duty.lease for duty in some]
            self._node.renew_leases(leases, partial(self._renewed, bool(own), some))
            own = []

    def _renewed(
        self, with_own: bool, duties: Sequence[_Duty], ttls: Any, error: EtcdError | None
    ) -> None:
        if error is not None:
            again_at = self._node.clock() + limits.CHECKING_RETRY_S
            self._beat_at = min(self._beat_at, again_at) if with_own else self._beat_at
            for duty in duties:
                duty.beat_at = min(duty.beat_at, again_at)
        elif with_own and not ttls[0]:
            self._lease = 0  # too late: others have taken over; join again

    # ---- results ---------------------------------------------------------------------------

    def _told(self, duty: _Duty, index: int, tally: Tally, finding: Finding) -> None:
        """A check of ours has found something."""
        duty.tallies[index] = tally
        duty.findings[index] = finding
        entry = self._catalog.entry(duty.name)
        if entry is not None and entry.instance is not None and duty.news(entry.instance):
            self._tell_of(duty.name)

    def _tell_of(self, name: InstanceName) -> None:
        self._news[name] = None
        self._woken.set()

    async def _tell(self) -> None:
        """Writes down what differs from what is stored; whatever fails is told again."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._news:
                names = list(self._news)[: limits.CHECKING_TELLERS]
                for name in names:
                    del self._news[name]
                told = await asyncio.gather(*map(self._tell_one, names))
                if not all(told):
                    await asyncio.sleep(limits.CHECKING_RETRY_S)

    async def _tell_one(self, name: InstanceName) -> bool:
        """Writes down the results of one instance; False: it has to be tried again."""
        duty, entry = self._duties.get(name), self._catalog.entry(name)
        if duty is None or entry is None or entry.instance is None:
            return True
        for check, status, finding in duty.news(entry.instance):
            result = {
                "name": check.title,
                "output": f"{finding.summary}\n{finding.output}".rstrip(),
                "checked_at": rfc3339(self._node.wall_ms()),
            }
            try:
                await self._service.check_result(
                    name, status, result, f"{check.title}: {finding.summary}"
                )
            except EtcdError as error:
                _LOG.info("result of check %s of %s: %s; trying again", check.title, name, error)
                self._news[name] = None
                return False
            except ValueError as error:
                _LOG.warning("result of check %s of %s: %s", check.title, name, error)
        return True
