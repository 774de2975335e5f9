"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ("progress_bar",)


@contextmanager
def progress_bar(title: str, *, sizes: bool = False) -> Iterator[Callable[[float, float], None]]:
    """Gives a function (done, total) that moves the bar; `sizes`: they are bytes.

    The bar is drawn on stderr, in colour unless NO_COLOR is set, and only for a person.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    if sizes:
        columns += [DownloadColumn(), TransferSpeedColumn()]
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
