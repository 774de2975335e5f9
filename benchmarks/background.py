"""A generator that works while the harness does something else, and is told by lines."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.generator.jobs import Job, Outcome
from benchmarks.sides import StoreError, environment
from tests.support.servers import ROOT

__all__ = ("Background",)

LAST_S = 60.0
"""How long one may take for what it has under way when it is told to end."""


class Background:
    """One job in a process of its own; a context manager that ends it in any case.

    Entering returns once the job says that it is ready. `tell` and `finish` raise StoreError when
    the process is gone or does not end.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> Background:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.generator"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        self.tell(self._job.dumps())
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._failed()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._failed()

    def finish(self, line: str, within_s: float = LAST_S) -> Outcome:
        """Says a last thing, and waits for what came of the job."""
        self.tell(line)
        try:
            answer, errors = self._process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired as error:
            raise StoreError(f"the generator did not end in {within_s:.0f} s") from error
        if self._process.returncode != 0:
            raise StoreError(f"the generator failed:\n{errors[-2000:]}")
        return Outcome.loads(answer)

    def _failed(self) -> None:
        _, errors = self._process.communicate(timeout=LAST_S)
        raise StoreError(f"the generator failed:\n{errors[-2000:]}")
