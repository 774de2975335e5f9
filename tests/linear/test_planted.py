"""The checkers under test: legal histories pass both, and no planted fault escapes either."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linear import revision_check, wgl
from tests.linear.finding import Finding, Verdict
from tests.linear.generate import Profile, Recorded, plan
from tests.linear.models import StoreModel
from tests.linear.planted import KINDS, plant
from tests.linear.settle import settle
from tests.sim import counts
from tests.sim.prng import Prng

SMOKE = 20
MANY = 400


def verdicts(recorded: Recorded) -> tuple[Finding, Finding]:
    settled = settle(recorded.history, recorded.witness)
    return revision_check.check(settled), wgl.check(StoreModel(), settled)


def accept_legal(seeds: range) -> None:
    for seed in seeds:
        for finding in verdicts(plan(Prng(seed)).carry_out()):
            assert finding.legal, f"seed {seed}: {finding}"


def catch_all(kind: str, seeds: range) -> int:
    slowest = 0.0
    for seed in seeds:
        recorded = plant(kind, plan(Prng(seed)), Prng(seed).fork(kind))
        assert recorded is not None, f"seed {seed} has no place for it"
        began = time.perf_counter()
        for name, finding in zip(("revisions", "search"), verdicts(recorded), strict=True):
            assert finding.verdict is Verdict.ILLEGAL, f"seed {seed}: missed by {name}"
            assert finding.operations, "a verdict without anything to look at"
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 5.0, f"one history took {slowest:.1f} s"
    return len(seeds)


def test_legal_histories_pass_both() -> None:
    accept_legal(range(SMOKE))


@pytest.mark.parametrize("kind", KINDS)
def test_planted_faults_are_caught_by_both(kind: str) -> None:
    catch_all(kind, range(SMOKE))


@pytest.mark.sim
def test_four_hundred_histories_clean_and_with_every_kind_of_fault() -> None:
    accept_legal(range(MANY))
    caught = {kind: catch_all(kind, range(MANY)) for kind in KINDS}
    numbers = {f"{kind} caught by both": count for kind, count in caught.items()}
    counts.record("checkers", **{"legal histories accepted by both": MANY, **numbers})
    print(numbers)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**64 - 1), kind=st.sampled_from(["", *KINDS]))
def test_the_checkers_agree(seed: int, kind: str) -> None:
    planned = plan(Prng(seed), Profile(operations=25, clients=4, unknown=150))
    recorded = plant(kind, planned, Prng(seed)) if kind else planned.carry_out()
    if recorded is None:
        recorded = planned.carry_out()
    by_revision, by_search = verdicts(recorded)
    assert by_revision.legal == by_search.legal, f"{by_revision}\n{by_search}"


def test_ten_thousand_operations_take_seconds() -> None:
    recorded = plan(Prng(1), Profile(clients=10, operations=10_000, keys=8)).carry_out()
    began = time.perf_counter()
    settled = settle(recorded.history, recorded.witness)
    assert revision_check.check(settled).legal
    took_s = time.perf_counter() - began
    assert took_s < 10.0, f"it took {took_s:.1f} s"
