"""Any bytes: accepted or one declared error, in bounded time and memory.

KVSTORE_FUZZ_INPUTS=5000000 pytest -m slow tests/fuzz -k "raft"     a long campaign
KVSTORE_FUZZ_SEED=7 …                                               other inputs
KVSTORE_COUNTS=<directory>                                          what was generated, as files
"""

from __future__ import annotations

import os
import re

import pytest

from tests.fuzz.engine import Tally, campaign, memory
from tests.fuzz.mutate import INPUT_BYTES_MAX, Mutator
from tests.fuzz.registry import Target
from tests.fuzz.targets import TARGETS
from tests.sim import counts
from tests.sim.prng import Prng

SEED = int(os.environ.get("KVSTORE_FUZZ_SEED", "1"))
LONG_INPUTS = int(os.environ.get("KVSTORE_FUZZ_INPUTS", "20000"))
NORMAL_INPUTS = 1500
SMOKE_INPUTS = 100
MEMORY_INPUTS = 60

every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def judge(tally: Tally) -> None:
    """Reports a campaign; one that saw only one side of its target has proved nothing."""
    target = tally.target
    name = "fuzz-" + re.sub(r"[^\w.]+", "-", target.name)
    numbers = {re.sub(r"\W+", "_", key): n for key, n in sorted(tally.outcomes.items())}
    counts.record(name, inputs=tally.inputs, **numbers)
    print(tally.line())
    assert not target.accepts or tally.accepted, f"nothing was accepted: {tally.line()}"
    assert not target.refuses or tally.accepted < tally.inputs, f"nothing refused: {tally.line()}"


@every_target
def test_a_few_of_everything(target: Target) -> None:
    judge(campaign(target, SMOKE_INPUTS, seed=SEED))


@pytest.mark.sim
@every_target
def test_some_of_everything(target: Target) -> None:
    judge(campaign(target, NORMAL_INPUTS, seed=SEED + 1))


@pytest.mark.slow
@every_target
def test_much_of_everything(target: Target) -> None:
    judge(campaign(target, LONG_INPUTS * target.cost, seed=SEED + 2))


@pytest.mark.sim
@every_target
def test_no_input_takes_much_memory(target: Target) -> None:
    memory(target, MEMORY_INPUTS, seed=SEED)


def test_inputs_depend_on_the_seed_alone() -> None:
    def inputs(seed: int) -> list[bytes]:
        return list(Mutator(Prng(seed), [b"seed", b"another"], [b"word"]).inputs(300))

    assert inputs(1) == inputs(1)
    assert inputs(1) != inputs(2)
    assert len(set(inputs(1))) > 150
    assert max(map(len, inputs(1))) <= INPUT_BYTES_MAX
