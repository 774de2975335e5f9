"""What the campaigns did, in numbers, for the report: one small file per process and campaign.

`KVSTORE_COUNTS` names the directory; without it nothing is written. Each process writes its own
files and replaces them whole, so nothing is lost or torn when several run at once. `read` adds
up what all of them wrote.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

__all__ = ("VARIABLE", "read", "record")

VARIABLE = "KVSTORE_COUNTS"

_recorded: dict[str, Counter[str]] = {}


def record(name: str, **numbers: float) -> None:
    """Adds these numbers to those that the campaign `name` has recorded in this process."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        return
    assert re.fullmatch(r"[\w.-]+", name), name
    total = _recorded.setdefault(name, Counter())
    total.update(numbers)  # type: ignore[arg-type]  # a Counter adds floats just as well
    path = Path(directory) / f"{name}.{os.getpid()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(total, sort_keys=True, indent=1) + "\n")
    unfinished.replace(path)


def read(directory: Path) -> dict[str, dict[str, float]]:
    """All campaigns in a directory: name → number's name → sum over all processes."""
    sums: dict[str, Counter[str]] = {}
    for path in sorted(directory.glob("*.json")):
        name = path.name.rsplit(".", 2)[0]
        sums.setdefault(name, Counter()).update(json.loads(path.read_text()))
    return {name: dict(numbers) for name, numbers in sums.items()}
