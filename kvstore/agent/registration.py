"""Keeps one instance registered: registers, heartbeats, reports, registers again, deregisters.

One task does one thing after the other, and compares: what is wanted (registered at all, this
status) with what the cluster was told. So whatever fails is simply done with the next round, and
an outage of the cluster needs no special way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from kvstore.agent import limits
from kvstore.client.errors import KvError
from kvstore.client.registry.aio import AsyncRegistry
from kvstore.client.registry.answers import Acknowledged, RegisterResult
from kvstore.client.registry.values import CheckResult, Instance, Status
from kvstore.errors import Code

__all__ = ("Refused", "Registration")

_LOG = logging.getLogger(__name__)
_FINAL = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.PERMISSION_DENIED,
        Code.UNAUTHENTICATED,
        Code.UNIMPLEMENTED,
        Code.OUT_OF_RANGE,
    }
)
"""The same registration will be refused again."""


class Refused(Exception):  # noqa: N818 - an outcome
    """The cluster does not accept the instance, and will not; the text says why."""


class Registration:
    """One instance. `start` it, tell it what its checks find, and `deregister` it in the end."""

    def __init__(
        self,
        calls: AsyncRegistry,
        instance: Instance,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`instance.reported` is what it is registered as at first."""
        self._calls = calls
        self._instance = instance
        self._chance = chance
        self._lease = 0
        """0: not registered, as far as we know."""
        self._results: Mapping[str, CheckResult] = {}
        """What each check found last, by its name."""
        self._told: dict[str, Status] = {}
        """What the cluster knows of that."""
        self._ever = False
        """It was registered once."""
        self._tried = False
        """A registration was sent: it may be registered without our knowing."""
        self._refused = False
        self._away_since: float | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._registering: asyncio.Task[RegisterResult] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def registered(self) -> bool:
        """The cluster knows it."""
        return self._lease != 0

    def start(self) -> asyncio.Task[None]:
        """Begins to keep it registered. The task ends by itself only with Refused."""
        self._task = asyncio.get_running_loop().create_task(
            self._keep(), name=f"registration {self._instance.id}"
        )
        return self._task

    def report(self, status: Status, results: Mapping[str, CheckResult]) -> None:
        """What each of its checks found, and what that adds up to; told where it is news."""
        self._instance = replace(self._instance, reported=status)
        self._results = dict(results)
        if self._news() is not None:
            self._wake.set()

    def _news(self) -> CheckResult | None:
        """A result that the cluster does not know: bad news first, since the worst counts."""
        news = [
            result
            for name, result in self._results.items()
            if self._told.get(name) is not result.status
        ]
        news.sort(key=lambda result: result.status is Status.UP)
        return news[0] if news else None

    # ---- while it runs ---------------------------------------------------------------------

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        beat_at = 0.0
        pause_s = limits.PAUSE_MIN_S
        while not self._closing:
            self._wake.clear()
            now = clock()
            try:
                if not self._lease:
                    await self._register()
                    beat_at = now + self._beat_pause_s()
                elif (news := self._news()) is not None:
                    await self._report(news)
                elif now >= beat_at:
                    await self._beat()
                    beat_at = now + self._beat_pause_s()
                else:
                    await self._idle(beat_at - now)
                    continue
            except KvError as error:
                self._failed(error, now)
                pause_s = await self._pause(error, pause_s)
            else:
                self._reached(clock())
                pause_s = limits.PAUSE_MIN_S

    async def _idle(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _register(self) -> None:
        self._tried = True
        wanted = self._instance
        # Not to be cancelled: who deregisters must know that no registration comes after it.
        self._registering = asyncio.ensure_future(
            self._calls.register_instance(wanted, timeout=self._call_s())
        )
        answer = await asyncio.shield(self._registering)
        self._lease = answer.instance.lease
        self._told = {each.name: each.status for each in answer.instance.check_results}
        _LOG.info(
            "registered %s%s as %s",
            self._where(),
            " again" if self._ever else "",
            answer.instance.status.value,
            extra={"lease": f"{self._lease:x}", "revision": answer.instance.mod_revision},
        )
        self._ever = True

    async def _beat(self) -> None:
        answer = await self._calls.heartbeat([self._lease], timeout=self._call_s())
        if not answer.ttl_s[0]:
            _LOG.warning("%s is not registered any more; registering it again", self._where())
            self._lease = 0

    async def _report(self, result: CheckResult) -> None:
        try:
            answer = await self._calls.set_status(
                self._instance.service,
                self._instance.id,
                check=result,
                reason=f"{result.name}: {result.output.partition(chr(10))[0]}",
                namespace=self._instance.namespace,
                timeout=self._call_s(),
            )
        except KvError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            self._lease = 0  # it expired, or somebody removed it
            return
        self._told[result.name] = result.status
        _LOG.log(
            logging.INFO if result.status is Status.UP else logging.WARNING,
            "%s is %s: check %s: %s",
            self._where(),
            answer.instance.status.value,
            result.name,
            result.output.partition("\n")[0],
        )

    def _failed(self, error: KvError, now: float) -> None:
        """A call failed; an outage is told of once."""
        final = error.code in _FINAL
        if final and not self._ever:
            self._refused = True
            raise Refused(f"{self._where()} was refused: {error.message}") from None
        if self._away_since is None:
            self._away_since = now
            _LOG.warning(
                "the cluster %s %s: %s; trying on",
                "refuses" if final else "does not answer for",
                self._where(),
                error.message,
            )

    def _reached(self, now: float) -> None:
        if self._away_since is not None:
            _LOG.info(
                "the cluster answers again for %s after %.1f s",
                self._where(),
                now - self._away_since,
            )
            self._away_since = None

    async def _pause(self, error: KvError, pause_s: float) -> float:
        """Waits before the next try; how long to wait the time after."""
        if error.code in _FINAL:
            pause_s = limits.REFUSED_PAUSE_S
        await asyncio.sleep(self._jittered(pause_s))
        return min(2 * pause_s, limits.PAUSE_MAX_S)

    def _beat_pause_s(self) -> float:
        return self._jittered(self._instance.ttl_s / limits.BEATS_PER_TTL)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + limits.JITTER * (2 * self._chance() - 1))

    def _call_s(self) -> float:
        third = self._instance.ttl_s / limits.BEATS_PER_TTL
        return min(max(third, limits.CALL_MIN_S), limits.CALL_MAX_S)

    def _where(self) -> str:
        one = self._instance
        return f"{one.namespace}/{one.service}/{one.id}"

    # ---- its end ---------------------------------------------------------------------------

    async def deregister(self, reason: str, wait_s: float) -> bool:
        """Removes it, and with `wait_s` waits until its subscribers know, at most so long.

        True: whoever could send requests there is known to know. False: not known, or the
        cluster did not answer in time (then expiry does the work). Does not raise for the
        cluster's sake.
        """
        self._closing = True
        self._wake.set()
        deadline_s = wait_s + limits.DEREGISTER_S
        try:
            async with asyncio.timeout(deadline_s):
                await self._settle()
                if not self._tried or self._refused:
                    return True
                answer = await self._calls.deregister(
                    self._instance.service,
                    self._instance.id,
                    namespace=self._instance.namespace,
                    reason=reason,
                    wait=min(wait_s, limits.ACK_WAIT_MAX_S) or None,
                    timeout=deadline_s,
                )
        except (KvError, TimeoutError) as error:
            _LOG.warning(
                "could not deregister %s (%s); it expires after its TTL of %d s and its grace "
                "time of %d s",
                self._where(),
                getattr(error, "message", "") or "no answer in time",
                self._instance.ttl_s,
                self._instance.grace_s or 0,
            )
            return False
        self._lease = 0
        _LOG.info("deregistered %s: %s", self._where(), reason)
        told = answer.acknowledged
        if told is None:
            return False
        _tell_who_knows(self._where(), told)
        return told.everyone

    async def _settle(self) -> None:
        """Ends the keeping; a registration under way is waited for, nothing else is."""
        if self._registering is not None and not self._registering.done():
            with contextlib.suppress(KvError):
                await asyncio.shield(self._registering)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _tell_who_knows(where: str, told: Acknowledged) -> None:
    if told.complete:
        _LOG.info("all %d subscribers know that %s is gone", told.acknowledged, where)
        return
    laggards = ", ".join(f"{each.id} at {each.member_name}" for each in told.laggards)
    _LOG.warning(
        "%d subscribers know that %s is gone; no acknowledgement from %s",
        told.acknowledged,
        where,
        laggards or f"{len(told.silent_members)} members",
    )
