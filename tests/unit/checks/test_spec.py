"""What a check may be, and its JSON both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.checks.spec import (
    BadCheck,
    Check,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    TcpProbe,
    TtlProbe,
    check_of_json,
    host_and_port,
    to_json,
    validate,
)

PROBES = st.one_of(
    st.builds(
        HttpProbe,
        st.sampled_from(("/healthz", "http://h/a?b=c", "https://[::1]:8443/x")),
        st.sampled_from(("GET", "HEAD")),
        st.dictionaries(st.sampled_from(("X-A", "Accept")), st.sampled_from(("", "b c"))),
        st.lists(st.integers(100, 599), max_size=3).map(tuple),
    ),
    st.builds(TcpProbe, st.sampled_from(("", "h:1", "[::1]:80"))),
    st.builds(GrpcProbe, st.sampled_from(("", "h:1")), st.sampled_from(("", "a.B"))),
)
CHECKS = st.builds(
    Check,
    probe=PROBES,
    name=st.sampled_from(("", "ready")),
    interval_s=st.integers(1000, 3_600_000).map(lambda ms: ms / 1000),
    timeout_s=st.integers(10, 1000).map(lambda ms: ms / 1000),
    healthy_after=st.integers(1, 100),
    unhealthy_after=st.integers(1, 100),
)


@given(CHECKS)
def test_json_leads_back(check: Check) -> None:
    assert check_of_json(json.loads(json.dumps(to_json(check)))) == check


def test_what_is_not_said_has_a_default() -> None:
    check = check_of_json({"tcp": {}})
    assert (check.interval_s, check.timeout_s) == (10.0, 2.0)
    assert (check.healthy_after, check.unhealthy_after) == (1, 3)
    assert check.title == "tcp"
    assert check_of_json({"tcp": {}, "interval_ms": 1000}).timeout_s == 1.0


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([], "object"),
        ({}, "exactly one of http, tcp and grpc"),
        ({"http": {"url": "/"}, "tcp": {}}, "exactly one"),
        ({"cmd": {"argv": ["rm"]}}, "exactly one of http, tcp and grpc"),
        ({"http": "x"}, "http is an object"),
        ({"http": {"url": "ftp://h/"}}, "neither an http or https URL"),
        ({"http": {"url": "h:80"}}, "neither an http or https URL"),
        ({"http": {"url": "//evil.example/x"}}, "neither an http or https URL"),
        ({"http": {"url": "http://"}}, "has no host"),
        ({"http": {"url": "http://h:99999/"}}, "cannot be read"),
        ({"http": {"url": "http://h:0/"}}, "port 0"),
        ({"http": {"url": "http://u:p@h/"}}, "password"),
        ({"http": {"url": "/a b"}}, "space"),
        ({"http": {"url": "/a\r\nX: y"}}, "not printable"),
        ({"http": {"url": "/", "method": "GET / HTTP/1.1"}}, "method"),
        ({"http": {"url": "/", "headers": {"A": "b\r\nC: d"}}}, "not printable"),
        ({"http": {"url": "/", "headers": {"A b": "c"}}}, "cannot be set"),
        ({"http": {"url": "/", "headers": {"Content-Length": "5"}}}, "cannot be set"),
        ({"http": {"url": "/", "headers": {"A": 1}}}, "texts"),
        ({"http": {"url": "/", "headers": {"A": "x" * 5000}}}, "bytes are allowed"),
        ({"http": {"url": "/", "expected_statuses": [99]}}, "99"),
        ({"http": {"url": "/", "expected_statuses": ["200"]}}, "numbers"),
        ({"tcp": {"target": "h"}}, "host:port"),
        ({"tcp": {"target": "::1:80"}}, "[address]:port"),
        ({"tcp": {"target": "h:0"}}, "1 to 65535"),
        ({"grpc": {"service": "a\nb"}}, "not printable"),
        ({"tcp": {}, "interval_ms": 999}, "the interval is 0.999 s"),
        ({"tcp": {}, "interval_ms": 3_600_001}, "allowed"),
        ({"tcp": {}, "timeout_ms": 11_000}, "the timeout is 11 s"),
        ({"tcp": {}, "healthy_after": 101}, "healthy_after is 101"),
        ({"tcp": {}, "unhealthy_after": -1}, "unhealthy_after is -1"),
        ({"tcp": {}, "interval_ms": True}, "whole number"),
        ({"tcp": {}, "name": "n" * 64}, "63"),
        ({"tcp": {}, "name": 5}, "name is a text"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(told: Any, words: str) -> None:
    with pytest.raises(BadCheck) as refused:
        check_of_json(told)
    assert words in str(refused.value)


@pytest.mark.parametrize("probe", [CommandProbe(("true",)), TtlProbe("/run/alive", 30)])
def test_what_runs_on_a_machine_never_comes_from_the_registry(probe: Any) -> None:
    with pytest.raises(BadCheck, match="agent alone"):
        to_json(validate(Check(probe)))


@pytest.mark.parametrize("probe", [CommandProbe(()), CommandProbe(("a\0",)), TtlProbe("", 1)])
def test_commands_and_files_have_to_be_some(probe: Any) -> None:
    with pytest.raises(BadCheck):
        validate(Check(probe))


def test_targets() -> None:
    assert host_and_port("db.example:5432") == ("db.example", 5432)
    assert host_and_port("[fe80::1]:80") == ("fe80::1", 80)
