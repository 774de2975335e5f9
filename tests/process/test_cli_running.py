"""Commands that run until interrupted, against a real server: lock, elect, watch, make-mirror."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.servers import ROOT, make_cluster

pytestmark = pytest.mark.process

COMMAND = (sys.executable, "-m", "kvstore.cli.main")


def run(*argv: str, code: int = 0) -> str:
    done = subprocess.run(
        [*COMMAND, *argv], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
    )
    assert done.returncode == code, done
    return done.stdout


def begin(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *argv], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with make_cluster(tmp_path_factory.mktemp("server")) as cluster:
        yield f"--endpoints={cluster.endpoints}"


def test_an_interrupted_leader_resigns_and_the_next_one_leads(where: str) -> None:
    first = begin(where, "elect", "leader", "one")
    assert first.stdout is not None
    assert first.stdout.readline().startswith("leader/")
    assert first.stdout.readline() == "one\n"
    second = begin(where, "elect", "leader", "two")
    until(lambda: run(where, "get", "leader/", "--prefix").count("leader/") == 2)
    assert interrupted(first) == (0, "", "")
    assert second.stdout is not None
    assert second.stdout.readline().startswith("leader/")
    assert second.stdout.readline() == "two\n"
    assert interrupted(second) == (0, "", "")
    assert run(where, "get", "leader/", "--prefix") == ""


def test_one_who_waits_for_a_lock_and_is_interrupted_leaves_the_queue(where: str) -> None:
    holder = begin(where, "lock", "jobs")
    assert holder.stdout is not None
    assert holder.stdout.readline().startswith("jobs/")
    assert holder.stdout.readline() == "\n"
    waiter = begin(where, "lock", "jobs")
    until(lambda: run(where, "get", "jobs/", "--prefix").count("jobs/") == 2)
    assert interrupted(waiter) == (5, "", "")
    assert run(where, "get", "jobs/", "--prefix").count("jobs/") == 1
    assert interrupted(holder) == (0, "", "")


def test_a_command_under_a_lock_knows_it_and_its_exit_code_counts(where: str) -> None:
    script = 'test -n "$ETCD_LOCK_REV" && echo "${KVSTORE_LOCK_KEY%%/*}"; exit 7'
    assert run(where, "lock", "work", "--", "sh", "-c", script, code=7) == "work\n"
    assert run(where, "get", "work/", "--prefix") == ""


def test_a_watch_dies_quietly_and_shows_events_at_once(where: str) -> None:
    watch = begin(where, "watch", "seen", "--", "sh", "-c", "echo $KVSTORE_WATCH_VALUE")
    time.sleep(1.0)
    run(where, "put", "seen", "it")
    assert watch.stdout is not None
    assert [watch.stdout.readline() for _ in range(4)] == ["PUT\n", "seen\n", "it\n", '"it"\n']
    assert interrupted(watch) == (-signal.SIGINT, "", "")


def test_a_reader_that_goes_away_ends_the_command_without_a_word(where: str) -> None:
    for number in range(3):
        run(where, "put", f"many{number}", "x" * 100_000)
    process = begin(where, "get", "many", "--prefix")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=15) == 141


def test_a_mirror_copies_and_follows(where: str, tmp_path: Path) -> None:
    run(where, "put", "app/old", "1")
    with make_cluster(tmp_path) as other:
        there = f"--endpoints={other.endpoints}"
        mirror = begin(
            where, "make-mirror", other.endpoints, "--prefix=app/", "--dest-prefix=copy/"
        )
        until(lambda: run(there, "get", "copy/old"))
        run(where, "put", "app/new", "2")
        run(where, "del", "app/old")
        until(lambda: not run(there, "get", "copy/old"))
        assert run(there, "get", "", "--prefix") == "copy/new\n2\n"
        code, _, err = interrupted(mirror)
        assert (code, err) == (5, "")


def test_perf_judges_and_cleans_up(where: str) -> None:
    said = run(where, "check", "perf", "--duration=2s")
    assert "PASS: Throughput is 1" in said
    assert said.endswith("\nPASS\n")
    assert run(where, "get", "/etcdctl-check-perf/", "--prefix", "--count-only") == "0\n"
