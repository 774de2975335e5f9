"""Many checks at their own pace, bounded in number; nothing overlaps with itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from kvstore.checks.probes import Target
from kvstore.checks.scheduler import Scheduler
from kvstore.checks.spec import Check, TcpProbe
from kvstore.checks.tally import Finding, Standing, Tally, Verdict

TARGET = Target("127.0.0.1", 80)
PASSING = Finding(Verdict.PASSING, "fine")


class Prober:
    """Answers after a while; counts what is under way."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.under_way: Counter[str] = Counter()
        self.most = 0
        self.asked: Counter[str] = Counter()
        self.broken = False

    async def probe(self, check: Check, _: Target) -> Finding:
        self.under_way[check.name] += 1
        assert self.under_way[check.name] == 1
        self.most = max(self.most, self.under_way.total())
        self.asked[check.name] += 1
        try:
            await asyncio.sleep(self.takes_s)
            if self.broken:
                raise RuntimeError("a bug")
            return PASSING
        finally:
            self.under_way[check.name] -= 1


async def until(holds: Callable[[], bool]) -> None:
    """Returns once something is so; fails after 5 s."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.001)


def check(name: str, interval_s: float = 0.01) -> Check:
    return Check(TcpProbe(), name=name, interval_s=interval_s)


def test_so_many_at_once_and_not_more() -> None:
    async def go() -> None:
        prober = Prober(0.002)
        scheduler = Scheduler(prober, concurrency=8)
        heard: Counter[str] = Counter()
        everybody = asyncio.Event()

        def told(name: str) -> None:
            heard[name] += 1
            if len(heard) == 200 and min(heard.values()) >= 2:
                everybody.set()

        for number in range(200):
            name = f"c{number}"
            scheduler.add(name, check(name), TARGET, lambda _t, _f, name=name: told(name))
        async with asyncio.timeout(20):
            await everybody.wait()
        assert prober.most == 8
        await scheduler.close()
        assert not prober.under_way.total()
        assert len(scheduler) == 0

    asyncio.run(go())


def test_a_check_keeps_its_pace_and_its_tally() -> None:
    async def go() -> None:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        tallies: list[Tally] = []
        enough = asyncio.Event()

        def told(tally: Tally, _: Finding) -> None:
            times.append(loop.time())
            tallies.append(tally)
            if len(times) == 4:
                enough.set()

        scheduler = Scheduler(Prober(), chance=lambda: 0.5)
        begun = Tally(Standing.DOWN, 5, good=False)
        scheduler.add("a", check("a", 0.05), TARGET, told, tally=begun)
        async with asyncio.timeout(5):
            await enough.wait()
        await scheduler.close()
        assert all(b - a >= 0.045 for a, b in pairwise(times))
        assert [tally.in_row for tally in tallies] == [1, 2, 3, 4]
        assert tallies[0].standing is Standing.UP

    asyncio.run(go())


def test_what_was_removed_or_replaced_is_never_heard_of_again() -> None:
    async def go() -> None:
        heard: list[str] = []
        scheduler = Scheduler(Prober(0.005))
        scheduler.add("a", check("old"), TARGET, lambda *_: heard.append("old"))
        await asyncio.sleep(0)
        scheduler.add("a", check("new"), TARGET, lambda *_: heard.append("new"))
        assert len(scheduler) == 1
        await until(lambda: len(heard) >= 3)
        assert set(heard) == {"new"}
        scheduler.remove("a")
        scheduler.remove("a")
        assert "a" not in scheduler
        heard.clear()
        await asyncio.sleep(0.05)
        assert not heard
        await scheduler.close()

    asyncio.run(go())


def test_a_bug_in_a_probe_does_not_end_the_checking(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        prober = Prober()
        prober.broken = True
        scheduler = Scheduler(prober)
        heard = asyncio.Event()
        scheduler.add("a", check("a"), TARGET, lambda *_: heard.set())
        await until(lambda: prober.asked["a"] >= 3)
        assert not heard.is_set()
        prober.broken = False
        await until(heard.is_set)
        await scheduler.close()

    asyncio.run(go())
    assert "check a failed; going on" in caplog.text


def test_who_is_starting_is_asked_more_often_by_who_is_eager() -> None:
    async def go() -> None:
        class Never(Prober):
            async def probe(self, check: Check, target: Target) -> Finding:
                await super().probe(check, target)
                return Finding(Verdict.CRITICAL, "not yet")

        eager, patient = Never(), Never()
        schedulers = [Scheduler(eager, eager=True), Scheduler(patient)]
        for scheduler in schedulers:
            scheduler.add("a", check("a", 3600.0), TARGET, lambda *_: None)
        await until(lambda: eager.asked["a"] >= 3)
        assert patient.asked["a"] == 1
        for scheduler in schedulers:
            await scheduler.close()

    asyncio.run(go())
