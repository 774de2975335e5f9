"""The search agrees with every published verdict: 102 register and 6 key-value histories."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.linear import published, wgl
from tests.linear.finding import Verdict
from tests.linear.history import Operation
from tests.linear.models import RegisterModel, TextMapModel


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


def test_every_register_history_is_judged_as_published() -> None:
    verdicts = published.register_verdicts()
    assert (len(verdicts), sum(verdicts.values())) == (102, 23)
    assert disagreements(verdicts, published.register_history, RegisterModel()) == []


def test_every_text_map_history_is_judged_as_published() -> None:
    verdicts = published.text_verdicts()
    assert (len(verdicts), sum(verdicts.values())) == (6, 3)
    assert disagreements(verdicts, published.text_history, TextMapModel()) == []


@pytest.mark.parametrize(("name", "count"), [("etcd_000.log", 85), ("c01-ok.txt", 58)])
def test_no_operation_of_a_history_is_lost_in_reading(name: str, count: int) -> None:
    read = published.register_history if name.endswith(".log") else published.text_history
    assert len(read(name)) == count
