"""The search agrees with every published verdict: 102 register and 6 key-value histories."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.linear import published, wgl
from tests.linear.finding import Verdict
from tests.linear.history import Operation
from tests.linear.models import RegisterModel, TextMapModel
from tests.sim import counts


def disagreements(
    verdicts: dict[str, bool],
    read: Callable[[str], list[Operation]],
    model: wgl.Model[str] | wgl.Model[tuple[int, ...]],
) -> list[str]:
    wrong: list[str] = []
    for name, legal in verdicts.items():
        verdict = wgl.check(model, read(name)).verdict
        if verdict is not (Verdict.LEGAL if legal else Verdict.ILLEGAL):
            wrong.append(f"{name}: {verdict.value}")
    return wrong


def judge_registers(names: slice) -> None:
    verdicts = dict(list(published.register_verdicts().items())[names])
    counts.record("linear", histories=len(verdicts), published_histories=len(verdicts))
    assert disagreements(verdicts, published.register_history, RegisterModel()) == []


def judge_texts(names: slice) -> None:
    verdicts = dict(list(published.text_verdicts().items())[names])
    counts.record("linear", histories=len(verdicts), published_histories=len(verdicts))
    assert disagreements(verdicts, published.text_history, TextMapModel()) == []


def test_the_published_verdicts_are_all_there() -> None:
    registers, texts = published.register_verdicts(), published.text_verdicts()
    assert (len(registers), sum(registers.values())) == (102, 23)
    assert (len(texts), sum(texts.values())) == (6, 3)


def test_some_histories_are_judged_as_published() -> None:
    judge_registers(slice(10, 40))
    judge_texts(slice(4))


@pytest.mark.sim
def test_every_register_history_is_judged_as_published() -> None:
    judge_registers(slice(None))


@pytest.mark.sim
def test_every_text_map_history_is_judged_as_published() -> None:
    judge_texts(slice(None))


@pytest.mark.parametrize(("name", "count"), [("etcd_000.log", 85), ("c01-ok.txt", 58)])
def test_no_operation_of_a_history_is_lost_in_reading(name: str, count: int) -> None:
    read = published.register_history if name.endswith(".log") else published.text_history
    assert len(read(name)) == count
