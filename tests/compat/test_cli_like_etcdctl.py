"""Our client commands and Debian's etcdctl, each with a fresh etcd: equal scripts, equal output.

The scripts are those that drive etcdctl against our server, and more in cli_scripts/. Where we
print something else than etcdctl 3.4, DIFFERENCES says so with a reason; an entry that is not
needed fails as well.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.compat.test_etcdctl import HERE, SCRIPTS, Difference, run_script, unexplained
from tests.support.servers import ROOT
from tests.support.tools import require

pytestmark = [pytest.mark.compat, pytest.mark.timeout(240)]

ALL_SCRIPTS = SCRIPTS + sorted((HERE / "cli_scripts").glob("*.sh"))

NOT_YET = "users and roles are not served yet; their commands come with them"
TOO_LARGE = (
    "Error: rpc error: code = ResourceExhausted desc ="
    " trying to send message larger than max (3000014 vs. 2097152)"
)
BAD_LEASE = (
    'Error: bad lease ID arg (strconv.ParseInt: parsing "xyz": invalid syntax), expecting ID in Hex'
)
DIFFERENCES: list[tuple[Difference, str]] = [
    (
        Difference("concurrency", ("[exit 1]",), ("[exit 7]",)),
        "since 3.5 the exit code of `lock` is that of the command it ran",
    ),
    (
        Difference(
            "limits",
            (TOO_LARGE,),
            ("Error: grpc: received message larger than max (3000014 vs. 2097152)",),
        ),
        "our client leaves the limit to the server",
    ),
    (
        Difference(
            "lease",
            ("Error: unknown shorthand flag: '5' in -5", "[exit 1]"),
            ("Error: No such option '-5'.", "[exit 128]"),
        ),
        "a line of usage instead of all options; wrong arguments end with 128 always",
    ),
    (
        Difference(
            "lease",
            ('Error: bad TTL (strconv.ParseInt: parsing "abc": invalid syntax)',),
            ("Error: bad TTL ('abc' is not a number)",),
        ),
        "no Go function names",
    ),
    (
        Difference(
            "lease",
            (BAD_LEASE,),
            ("Error: bad lease ID arg ('xyz'), expecting ID in Hex",),
        ),
        "no Go function names",
    ),
    (
        Difference(
            "maintenance",
            ("Error: etcdserver: root user does not exist", "[exit 1]"),
            ("Error: No such command 'auth'.", "[exit 2]"),
        ),
        NOT_YET,
    ),
    (
        Difference(
            "maintenance",
            ("User someone created", "[exit 0]"),
            ("Error: No such command 'user'.", "[exit 2]"),
        ),
        NOT_YET,
    ),
    (
        Difference(
            "maintenance",
            ("[exit 0]",),
            ("Error: No such command 'role'.", "[exit 2]"),
        ),
        NOT_YET,
    ),
    (
        Difference(
            "maintenance",
            ("etcdctl version: 3.4.23", "API version: 3.4"),
            ("kvstore version: 0.1.0", "API version: 3.6"),
        ),
        "another program, another version",
    ),
]


def without_usage(lines: list[str]) -> list[str]:
    """Drops both programs' texts of usage and what moves with the clock."""
    text = "\n".join(lines)
    text = re.sub(r"^NAME:\n.*?\n\n\n(?=Error:)", "", text, flags=re.S | re.M)
    text = re.sub(r"^(Error: [^\n]*)\n\1$", r"\1", text, flags=re.M)
    text = re.sub(r"^Usage: [^\n]*\nTry [^\n]*\n\n", "", text, flags=re.M)
    # etcdctl says so since 3.5.
    text = text.replace(" added as learner to ", " added to ")
    text = re.sub(r"remaining\(\d+s\)", "remaining(<n>s)", text)
    # etcd lists them in no order.
    text = re.sub(
        r"attached keys\(\[([^]]*)", lambda m: f"attached keys([{sorted(m[1].split())}", text
    )
    text = re.sub(r'"ttl":\d+', '"ttl":<n>', text)
    text = re.sub(r'"TTL" : \d+\n"GrantedTTL"', '"TTL" : <n>\n"GrantedTTL"', text)
    return text.split("\n")


@pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda p: p.stem)
def test_same_script_prints_the_same(script: Path, tmp_path: Path) -> None:
    etcd, etcdctl = require("etcd"), require("etcdctl")
    ours_path = tmp_path / "kvstore"
    ours_path.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m kvstore.cli.main "$@"\n'
    )
    ours_path.chmod(0o755)
    theirs = without_usage(run_script(script, (etcd,), tmp_path / "theirs", etcdctl))
    ours = without_usage(run_script(script, (etcd,), tmp_path / "ours", str(ours_path)))
    explained = [entry for entry, _ in DIFFERENCES if entry.script == script.stem]
    left, unused = unexplained(theirs, ours, explained)
    assert not left, "different without a reason:\n" + "\n".join(left)
    assert not unused, f"explained but no longer different: {unused}"
