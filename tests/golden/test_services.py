"""Golden output of the service commands: every kind of answer as columns, as a table, as JSON.

A command line of the files is `FORM KIND`, or `FORM WIDTH KIND` as on a terminal that is so wide.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.cli.gotext import to_json
from kvstore.cli.rows import ascii_table
from kvstore.cli.services import shapes, views
from kvstore.cli.services.columns import Cell, Look, columns, plain
from kvstore.client.registry.values import Settings
from kvstore.client.registry.values import to_json as instance_json
from tests.golden.runner import check
from tests.support import sample_services as sample

FILES = sorted((Path(__file__).parent / "services").glob("*.txt"))
NOW = sample.NOW_MS
VIEWS: dict[str, Callable[[], tuple[views.View, Iterable[str]]]] = {
    "services": lambda: (views.services(sample.SERVICES), views.about_services(sample.SERVICES)),
    "instances": lambda: (
        views.instances(sample.INSTANCES, NOW),
        views.about_instances(sample.PAYMENT, sample.INSTANCES),
    ),
    "nobody": lambda: (
        views.instances(sample.NOBODY, NOW),
        views.about_instances(sample.SHOP, sample.NOBODY),
    ),
    "status": lambda: (views.details(sample.SET, NOW), ()),
    "guards": lambda: (views.guards([(sample.PAYMENT, sample.GUARD)]), ()),
    "history": lambda: (views.events(sample.HISTORY, with_service=False), ()),
    "history_of_all": lambda: (views.events(sample.HISTORY, with_service=True), ()),
    "then": lambda: (views.past(sample.THEN, NOW), ()),
    "settings": lambda: (views.settings(sample.SETTINGS, stored=True), ()),
    "defaults": lambda: (views.settings(Settings(), stored=False), ()),
    "acknowledged": lambda: (views.View((), []), views.acknowledged(sample.ACKNOWLEDGED)),
}
JSON: dict[str, Callable[[], Any]] = {
    "services": lambda: shapes.summaries(sample.SERVICES),
    "instances": lambda: shapes.instances(sample.INSTANCES),
    "nobody": lambda: shapes.instances(sample.NOBODY),
    "status": lambda: instance_json(sample.SET),
    "watch": lambda: shapes.event(sample.UNHEALTHY),
    "snapshot": lambda: shapes.event(sample.REGISTERED, snapshot=True),
    "guards": lambda: [shapes.guard(sample.PAYMENT, sample.GUARD)],
    "history": lambda: shapes.history(sample.HISTORY, then=False),
    "then": lambda: shapes.history(sample.THEN, then=True),
    "explanation": lambda: shapes.explanation(sample.EXPLANATION),
    "deregistered": lambda: shapes.deregistered(sample.DEREGISTERED),
    "drained": lambda: shapes.drained(sample.DRAINED),
    "settings": lambda: shapes.settings(sample.SETTINGS, stored=True),
}


def execute(command: str) -> Iterator[str]:
    form, *width, kind = command.split()
    look = Look(colours=bool(width), width=int(width[0]) if width else 0)
    if form == "json":
        # Compact as it is printed, but one member a line, to be read and compared.
        value = JSON[kind]()
        assert json.loads(to_json(value)) == value
        for line in json.dumps(value, indent=1, ensure_ascii=False).splitlines():
            yield f"|{line}"
    elif kind == "explanation":
        for line in views.explanation(sample.EXPLANATION, NOW):
            yield f"|{look.paint(plain(line.text), line.colour)}".replace("\x1b", "ESC")
    else:
        yield from _table(form, kind, look)


def _table(form: str, kind: str, look: Look) -> Iterator[str]:
    view, remarks = VIEWS[kind]()
    if view.rows and form == "table":
        rows = [[plain(c.text if isinstance(c, Cell) else c) for c in row] for row in view.rows]
        yield from (f"|{line}" for line in ascii_table(view.headings, rows))
    elif view.rows:
        lines = columns(view.headings, view.rows, look)
        yield from (f"|{line}".replace("\x1b", "ESC") for line in lines)
    yield from (f"stderr|{remark}" for remark in remarks)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_forms(path: Path) -> None:
    check(path, execute)


def test_every_kind_of_answer_is_in_the_files() -> None:
    texts = {path.stem: path.read_text() for path in FILES}
    assert [kind for kind in VIEWS if f"simple {kind}\n" not in texts["simple"]] == []
    assert [kind for kind in JSON if f"json {kind}\n" not in texts["json"]] == []
