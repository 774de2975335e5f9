"""What the product logs as an error of its own is a violation, even if it goes on after it.

Duties, transfers and answers to peers catch what they do not expect, log it with its traceback,
and try again. In the simulator nothing unexpected is expected.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kvstore.errors import EtcdError
from kvstore.node.errors import StartupError
from kvstore.storage.errors import StorageError
from tests.sim.disk import ProcessDied
from tests.sim.observer import Violated

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("Complaints",)

_DECLARED = (EtcdError, StorageError, StartupError, OSError, EOFError, TimeoutError, ProcessDied)


class Complaints(logging.Handler):
    """Listens to the product's log while a seed runs; what it says goes nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.world: World | None = None
        self._loggers = [logging.getLogger(name) for name in ("kvstore", "raft", "asyncio")]
        self._before: list[tuple[int, bool]] = []

    def __enter__(self) -> Complaints:
        for logger in self._loggers:
            self._before.append((logger.level, logger.propagate))
            logger.setLevel(logging.ERROR)
            logger.propagate = False
            logger.addHandler(self)
        return self

    def __exit__(self, *failure: object) -> None:
        for logger, (level, propagate) in zip(self._loggers, self._before, strict=True):
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagate
        self._before.clear()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if self.world is None or error is None or isinstance(error, _DECLARED):
            return
        self.world.violate(Violated("K4", f"{record.getMessage()}: {error!r}"))
