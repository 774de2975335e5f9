"""One round: a member dies at a fault point, starts again, is compared with what it had said."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstore.faults import EXIT_CODE
from kvstore.storage.check import check_data_dir
from tests.support.servers import ROOT

__all__ = ("Forker", "History", "Outcome", "Referee", "forker")

Pairs = dict[str, tuple[str, int]]
"""Key to (value, mod revision)."""


@dataclass
class Outcome:
    """How a job ended, and what it said before."""

    code: int
    said: list[list[Any]]
    stderr: str = ""

    @property
    def killed(self) -> bool:
        return self.code == EXIT_CODE

    def word(self, name: str) -> Any:
        """What came behind `name`; fails with everything that was said if nothing did."""
        found = [words[1] for words in self.said if words[0] == name]
        assert found, (self.code, self.said[-3:])
        return found[-1]


class Forker:
    """The server of jobs (`fault_child`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.fault_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def run(self, job: str, directory: Path, *, faults: str = "", seed: int = 0) -> Outcome:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        order = {"job": job, "directory": str(directory), "faults": faults, "seed": seed}
        stdin.write(json.dumps(order).encode() + b"\n")
        stdin.flush()
        said = []
        for line in stdout:
            words = json.loads(line)
            if words[0] == "ended":
                return Outcome(words[1], said)
            said.append(words)
        raise AssertionError(f"the server of jobs ended: {said[-3:]}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def forker() -> Iterator[Forker]:
    made = Forker()
    try:
        yield made
    finally:
        made.close()


@dataclass
class History:
    """What was asked for, and what was acknowledged, over all lives of a directory."""

    asked: dict[str, dict[str, str | None]] = field(default_factory=dict)
    """Request to its effects: key to value, None for a deletion. Values occur once."""
    acked: dict[str, int] = field(default_factory=dict)
    """Request to the revision that it was told."""

    def copy(self) -> History:
        return History(dict(self.asked), dict(self.acked))

    def add(self, said: list[list[Any]]) -> None:
        for words in said:
            if words[0] == "ask":
                self.asked[words[1]] = words[2]
            elif words[0] == "ack":
                self.acked[words[1]] = words[2]

    def judge(self, pairs: Pairs, revision: int) -> None:
        """Every acknowledged write is there unless a later one replaced it, and nothing else is."""
        assert revision >= max(self.acked.values(), default=0), "the revision went back"
        by_value = {
            value: name for name, effects in self.asked.items() for value in effects.values()
        }
        latest: dict[str, tuple[int, str | None]] = {}
        open_deletes = set()
        for name, effects in self.asked.items():
            for key, value in effects.items():
                if name in self.acked:
                    latest[key] = max(
                        latest.get(key, (0, None)), (self.acked[name], value), key=lambda at: at[0]
                    )
                elif value is None:
                    open_deletes.add(key)
        for key in latest.keys() | pairs.keys():
            if key == "last":
                continue
            told_at, told = latest.get(key, (0, None))
            value, found_at = pairs.get(key, (None, 0))
            if value is None:
                assert told is None or key in open_deletes, f"{key} is gone, told {told}"
                continue
            name = by_value.get(value)
            assert name is not None, f"{key} holds {value}, which nobody wrote"
            assert self.asked[name].get(key) == value, f"{value} was not written to {key}"
            if name in self.acked:
                assert found_at == self.acked[name], f"{key}: {value} moved to {found_at}"
                assert value == told, f"{key} holds {value}, later it was told {told} at {told_at}"
            else:
                assert found_at > told_at, f"{key}: {value} at {found_at} under {told_at}"


class Referee:
    """Looks at the files of members that died, starts them again, and compares."""

    def __init__(self, jobs: Forker) -> None:
        self._jobs = jobs

    def clean(self, data_dir: Path) -> None:
        """The offline check finds nothing (nothing to be found is there before the beginning)."""
        if (data_dir / "member").exists():
            report = check_data_dir(data_dir)
            assert report.clean, report.findings

    def settle(self, directory: Path, history: History, seed: int, job: str = "settle") -> None:
        """Starts what died, compares it with the history, stops it, and replays its log."""
        members = [directory / "a", *([directory / "b"] if job != "settle" else [])]
        for data_dir in members:
            self.clean(data_dir)
        outcome = self._jobs.run(job, directory, seed=seed)
        assert outcome.code == 0, outcome.said[-3:]
        settled = outcome.word("settled")
        pairs = {key: (value, revision) for key, (value, revision) in settled["pairs"].items()}
        history.judge(pairs, settled["revision"])
        for data_dir in members:
            if not (data_dir / "member" / "wal").exists():
                continue
            self.clean(data_dir)
            # Nobody starts here again, so the store can go in its place.
            shutil.rmtree(data_dir / "member" / "db")
            hashes = settled["hashes"]
            replayed = self._jobs.run("replay", data_dir, seed=hashes[-1])
            assert replayed.word("replayed") == hashes, data_dir.name
        for one, other in (words[1] for words in outcome.said if words[0] == "both"):
            assert one == other, "the members differ"
