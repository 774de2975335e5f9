"""Documents are read as people read them, and what is not as they show it is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import Command, Page, Pairs, plain

PAGE = """\
# Page

```console
$ kvstore watch --prefix a     $ kvstore put a b     # elsewhere
PUT                            OK
a

$ kvstore get a
a
b
```

```sh
make run
```

Text.

    kvstore get b   # nothing
    kvstore txn <<'END'
    value("a") = "b"

    get a
    END
    kvstore put \\
        c d

| `kvstore service list` | lists |
|---|---|

```console
node1  has ended

$ kvstore service register a --heartbeat &
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Page:
    (tmp_path / "page.md").write_text(PAGE)
    return Page(tmp_path / "page.md")


def test_every_form_of_command_is_found_with_its_line_and_what_it_says(page: Page) -> None:
    assert [(each.line, each.typed.split("\n")[0], each.said) for each in page.rest()] == [
        (4, "kvstore watch --prefix a", ("PUT", "a")),
        (4, "kvstore put a b     # elsewhere", ("OK",)),
        (8, "kvstore get a", ("a", "b")),
        (19, "kvstore get b   # nothing", None),
        (20, "kvstore txn <<'END'", None),
        (25, "kvstore put \\", None),
        (28, "kvstore service list", None),
        (32, "", ("node1  has ended",)),
        (34, "kvstore service register a --heartbeat &", ()),
    ]
    assert page.rest() == []


def test_commands_are_taken_once(page: Page) -> None:
    assert [each.line for each in page.before("kvstore get a")] == [4, 4]
    assert page.take("kvstore txn").typed.endswith("\n\nget a\nEND")
    assert page.take("").typed == ""
    assert page.take("kvstore").line == 8
    with pytest.raises(AssertionError, match=r"page\.md shows no more `kvstore txn`"):
        page.take("kvstore txn")


@pytest.mark.parametrize(
    ("typed", "goes_on"),
    [
        ("kvstore local --dns", True),
        ("kvstore watch a", True),
        ("kvstore service watch a -w json      # each change", True),
        ("kvstore service register a --port 1 --heartbeat &", True),
        ("kvstore service register a --port 1", False),
        ("kvstore get watch   # --heartbeat &", False),
    ],
)
def test_what_runs_until_it_is_ended(typed: str, goes_on: bool) -> None:
    assert Command("page.md", 1, typed).goes_on is goes_on


def test_what_changes_is_named() -> None:
    line = "  revision 4, 0s ago  drained; 37 s are left until 2026-11-24T04:53:46.547Z"
    assert plain(line) == "  revision REVISION, AGE ago  drained; N s are left until TIME"
    assert plain("2026-11-24T04:53:46.547Z  12        registered") == "TIME  REVISION  registered"
    assert plain("payment-1  127.0.0.1:8080  UP   10 s") == "payment-1  127.0.0.1:8080  UP  10 s"


SHOWN = ("2026-11-24T04:53:46.547Z  2         registered  a  UP", "lease 13b9a20be712b402")
PRINTED = ("2027-01-01T00:00:00.001Z  17        registered  a  UP", "lease 7587a20be712b402")


def test_what_is_alike_in_all_that_matters_differs_in_nothing() -> None:
    pairs = Pairs()
    assert pairs.differences(SHOWN, PRINTED) == ""
    assert pairs.differences(SHOWN, PRINTED) == ""


@pytest.mark.parametrize(
    "printed",
    [
        PRINTED[:1],
        (*PRINTED, "more"),
        (PRINTED[0].replace("UP", "DOWN"), PRINTED[1]),
        (PRINTED[0].replace("17        ", "-         "), PRINTED[1]),
        (PRINTED[0], "lease none"),
        (),
    ],
)
def test_a_difference_is_shown_line_by_line(printed: tuple[str, ...]) -> None:
    told = Pairs().differences(SHOWN, printed)
    assert told.startswith("--- shown\n+++ printed\n")
    assert "\n-" in told[4:] or "\n+more" in told


def test_what_the_document_shows_twice_must_be_the_same_twice() -> None:
    pairs = Pairs()
    assert not pairs.differences(["revision 4"], ["revision 9"])
    assert not pairs.differences(["revision 5"], ["revision 11"])
    told = pairs.differences(["revision 4"], ["revision 11"])
    assert told == "REVISION 4 is 9 elsewhere and 11 here"
