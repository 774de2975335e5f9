"""Debian's etcdctl against etcd and against us: the same script must print the same.

Each script in scripts/ runs on a fresh one-node cluster of each kind. What must differ (ids, times,
sizes, raft indexes) is replaced by placeholders first. What still differs must be explained in
DIFFERENCES.md; an explanation that is not needed fails too, so that the file stays true.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.servers import KVSTORE, make_cluster
from tests.support.tools import require

HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(p for p in (HERE / "scripts").glob("*.sh") if p.name != "lib.sh")

pytestmark = [pytest.mark.compat, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Difference:
    """One entry of DIFFERENCES.md: where we print other lines than etcd 3.4, and why."""

    script: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]


def read_differences(text: str) -> list[Difference]:
    """Entries look like: `## script: title`, a reason, then a ```diff block (- etcd, + ours)."""
    found = []
    for match in re.finditer(r"^## (\w+): .*?```diff\n(.*?)```", text, flags=re.S | re.M):
        lines = match[2].rstrip("\n").split("\n")
        theirs = tuple(line[1:] for line in lines if line.startswith("-"))
        ours = tuple(line[1:] for line in lines if line.startswith("+"))
        found.append(Difference(match[1], theirs, ours))
    return found


def normalise(text: str, replacements: dict[str, str]) -> list[str]:
    """Puts placeholders for what no two clusters share."""
    for value, name in replacements.items():
        text = text.replace(value, name)
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"took = [\d.]+(µs|ms|s)", "took = <time>"),
        (r"took [\d.]+(µs|ms|s)", "took <time>"),
        (r'"took":"[^"]+"', '"took":"<time>"'),
        (r"\| +[\d.]+(µs|ms|s) \|", "| <time> |"),
        (r'"(raft_?[tT]erm|raft_?[iI]ndex|raftAppliedIndex)":\d+', r'"\1":<n>'),
        (r'"(db_?[sS]ize|dbSizeInUse)":\d+', r'"\1":<n>'),
        (r'"(Raft\w*|DBSize\w*|Took|raft_term)" : .*', r'"\1" : <n>'),
        (r"[\d.]+ [kM]B", "<size>"),
        (r'"version":"3[\d.]+"', '"version":"<version>"'),
        (r'"Version" : "3[\d.]+"', '"Version" : "<version>"'),
        (
            r", 3\.\d+\.\d+, <size>, (true|false), (true|false), \d+, \d+, \d+",
            r", <version>, <size>, \1, \2, <n>, <n>, <n>",
        ),
        (
            r"\| 3\.\d+\.\d+ \| <size> \| (\w+) \| (\w+) \| \d+ \| \d+ \| \d+ \|",
            r"| <version> | <size> | \1 | \2 | <n> | <n> | <n> |",
        ),
        (r"-{3,}\+", "-----+"),
        (r'\{"level":"[^\n]*\n', ""),
    ]
    text = re.sub(r"(?m)^\|.*$", lambda m: re.sub(" {2,}", " ", m[0]), text)
    for pattern, new in rules:
        text = re.sub(pattern, new, text)
    # etcd lists a lease's keys in no order.
    text = re.sub(
        r"attached keys\(\[([^]]*)\]\)",
        lambda m: f"attached keys([{' '.join(sorted(m[1].split()))}])",
        text,
    )
    text = re.sub(r'"keys":\[([^]]*)\]', lambda m: f'"keys":{sorted(m[1].split(","))}', text)
    text = re.sub(
        r'(?<=ETCD_INITIAL_CLUSTER=")[^"]*', lambda m: ",".join(sorted(m[0].split(","))), text
    )
    numbers: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"<id{len(numbers) + 1}>")

    # etcdctl pads some ids to 16 places: one that begins with a zero digit stands behind a blank.
    text = re.sub(r"\b(Member|cluster) +(?=[0-9a-f]{13,16}\b)", r"\1 ", text)
    text = re.sub(r"\b[0-9a-f]{13,16}\b|\b\d{15,20}\b", named, text)
    return [line.rstrip() for line in text.split("\n")]


def run_script(script: Path, argv: tuple[str, ...], directory: Path, tool: str = "") -> list[str]:
    """What the script prints with `tool` (etcdctl) against a server that `argv` starts."""
    etcdctl = tool or require("etcdctl")
    with make_cluster(directory, argv=argv) as cluster:
        server = cluster.servers[0]
        scratch = directory / "scratch"
        scratch.mkdir()
        done = subprocess.run(
            ["bash", str(script)],
            env={
                **os.environ,
                "ENDPOINT": server.endpoint,
                "ETCDCTL": etcdctl,
                "SCRATCH": str(scratch),
                "LIB": str(HERE / "scripts" / "lib.sh"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=150,
        )
        assert server.running, server.log()[-4000:]
        return normalise(
            done.stdout.decode(errors="backslashreplace"),
            {server.endpoint: "<endpoint>", f"127.0.0.1:{server.peer_port}": "<peer>"},
        )


def unexplained(
    theirs: list[str], ours: list[str], explained: list[Difference]
) -> tuple[list[str], list[Difference]]:
    """The hunks that no entry explains, and the entries that explained nothing."""
    unused = list(explained)
    left = []
    matcher = difflib.SequenceMatcher(a=theirs, b=ours, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        hunk = (tuple(theirs[i1:i2]), tuple(ours[j1:j2]))
        known = [d for d in explained if (d.theirs, d.ours) == hunk]
        if known:
            unused = [d for d in unused if d not in known]
            continue
        left += [f"  after: {theirs[i] if (i := i1 - 1) >= 0 else '(start)'}"]
        left += [f"-{line}" for line in hunk[0]] + [f"+{line}" for line in hunk[1]]
    return left, unused


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_same_script_prints_the_same(script: Path, tmp_path: Path) -> None:
    etcd = require("etcd")
    theirs = run_script(script, (etcd,), tmp_path / "etcd")
    ours = run_script(script, KVSTORE, tmp_path / "ours")
    explained = [
        d
        for d in read_differences((HERE / "DIFFERENCES.md").read_text())
        if d.script == script.stem
    ]
    left, unused = unexplained(theirs, ours, explained)
    assert not left, "not in DIFFERENCES.md:\n" + "\n".join(left)
    assert not unused, f"explained but no longer different: {unused}"
