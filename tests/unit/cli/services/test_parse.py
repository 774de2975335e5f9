"""What is read from a command line about instances and times, and what is refused how."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kvstore.cli.exits import BAD_ARGS, CliError
from kvstore.cli.services import checks, parse, times
from kvstore.cli.services.columns import Look, columns, cut, width_of
from kvstore.client.registry.values import (
    Check,
    GrpcCheck,
    HttpCheck,
    Status,
    TcpCheck,
    to_json,
)
from tests.support import sample_services as sample


def from_json(told: object) -> object:
    return parse.from_json(json.dumps(told), "payment", "default")


def test_what_get_prints_can_be_registered_again() -> None:
    again = parse.from_json(json.dumps(to_json(sample.SET)), "payment", "default")
    same = ("id", "address", "zone", "region", "version", "weight", "tags", "metadata", "ports")
    for name in (*same, "ttl_s", "grace_s", "drain_s"):
        assert getattr(again, name) == getattr(sample.SET, name), name
    assert again.reported is Status.UP  # an operator's status is not the instance's own


def test_the_port_of_the_json_says_which_of_the_ports_is_first() -> None:
    told = {"ports": {"admin": 9000, "http": 80}, "port": 80}
    assert parse.from_json(json.dumps(told), "payment", "default").port == 80
    assert parse.from_json('{"port": 80}', "payment", "default").ports == {"main": 80}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([], "is not an object"),
        ({"colour": "blue"}, "has a field 'colour'"),
        ({"port": "80"}, 'the JSON\'s port: a whole number is expected, not "80"'),
        ({"port": True}, "a whole number is expected, not true"),
        ({"port": 2**40}, "out of range"),
        ({"ports": [80]}, "an object of names and numbers is expected"),
        ({"ports": {"a": 1}, "port": 2}, "port 2, which is none of its ports"),
        ({"tags": "blue"}, "a list of texts is expected"),
        ({"metadata": {"a": 1}}, "text is expected, not 1"),
        ({"status": "FINE"}, "'FINE' is none of STARTING, UP"),
        ({"service": "other"}, "another service than the command: 'other'"),
        ({"checks": {"tcp": {}}}, "a list of checks is expected"),
        ({"checks": [{"cmd": ["true"]}]}, "exactly one of http, tcp and grpc"),
        ({"checks": [{"http": {"url": "ftp://a"}}]}, "neither an http or https URL"),
        ({"ttl_s": 0}, "ttl_s is 0"),
        ({"ttl_s": -1}, "out of range"),
    ],
)
def test_json_that_describes_no_instance(told: object, said: str) -> None:
    with pytest.raises(CliError) as refused:
        from_json(told)
    assert said in refused.value.message
    assert refused.value.code == BAD_ARGS


def test_checks_are_read_as_get_prints_them() -> None:
    checked = replace(
        sample.SET,
        checks=checks.of_options(
            ["http://10.0.0.1:8080/healthz", "/alive", "tcp", "grpc://10.0.0.1:9090/pay"]
        ),
    )
    assert [each.name for each in checked.checks] == ["", "http-2", "", ""]
    assert checked.checks[0].probe == HttpCheck("http://10.0.0.1:8080/healthz", "GET")
    assert checked.checks[2:] == (
        Check(TcpCheck(), "", 10.0, 2.0, 1, 3),
        Check(GrpcCheck("10.0.0.1:9090", "pay"), "", 10.0, 2.0, 1, 3),
    )
    again = parse.from_json(json.dumps(to_json(checked)), "payment", "default")
    assert again.checks == checked.checks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cmd:true", "runs in an agent alone"),
        ("ttl:30s:/tmp/x", "runs in an agent alone"),
        ("ftp://a", "is not a check"),
        ("tcp://nowhere", "is not host:port"),
    ],
)
def test_checks_that_the_cluster_cannot_run(text: str, said: str) -> None:
    with pytest.raises(CliError) as refused:
        checks.of_options([text])
    assert said in refused.value.message
    assert refused.value.code == BAD_ARGS


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 100_000, '{"port": 1e999}'])
def test_what_is_no_json_is_a_sentence(text: str) -> None:
    with pytest.raises(CliError, match="JSON"):
        parse.from_json(text, "payment", "default")


@pytest.mark.parametrize(
    ("given", "found"),
    [(["80"], {"main": 80}), (["http=80", "9"], {"http": 80, "main": 9}), ([], {})],
)
def test_ports(given: list[str], found: dict[str, int]) -> None:
    assert list(parse.ports(given).items()) == list(found.items())


@pytest.mark.parametrize(
    "given", [["x"], ["http="], ["=80"], ["1", "2"], ["-1"], ["1234567"], ["٣"]]
)
def test_ports_that_are_none(given: list[str]) -> None:
    with pytest.raises(CliError, match="--port"):
        parse.ports(given)


def test_metadata_and_statuses() -> None:
    assert parse.pairs(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert parse.status_word("out-of-service") is Status.OUT_OF_SERVICE
    for wrong in (lambda: parse.pairs(["a"]), lambda: parse.status_word("ill")):
        with pytest.raises(CliError):
            wrong()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59, "59s"), (60, "1m"), (192, "3m12s"), (7_500, "2h5m"), (90_000, "1d1h")],
)
def test_ages(seconds: int, text: str) -> None:
    assert times.age(sample.NOW_MS - seconds * 1000, sample.NOW_MS) == text
    assert times.age(0, sample.NOW_MS) == ""


@pytest.mark.parametrize(
    ("text", "ago_ms"),
    [
        ("2026-01-01T12:00:00Z", 0),
        ("2026-01-01T13:00:00+01:00", 0),
        ("2026-01-01T11:59:59.5", 500),
        ("2026-01-01", 43_200_000),
        ("5m", 300_000),
        ("-1m30s", 90_000),
    ],
)
def test_moments(text: str, ago_ms: int) -> None:
    assert times.parse_moment(text, sample.NOW_MS) == sample.NOW_MS - ago_ms


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01T00:00:00Z", "5", "12:00:00Z"])
def test_moments_that_are_none(text: str) -> None:
    with pytest.raises(CliError, match="is not a time such as"):
        times.parse_moment(text, sample.NOW_MS)


def test_seconds_are_whole_and_enough() -> None:
    assert times.whole_seconds("ttl", 10.0, least=1) == 10
    for seconds in (0.5, 0.0, 1.5):
        with pytest.raises(CliError, match="--ttl is"):
            times.whole_seconds("ttl", seconds, least=1)


def test_wide_signs_take_two_columns() -> None:
    assert width_of("日本") == 4
    assert cut("日本語", 4) == "日…"
    assert list(columns(("a", "b"), [["日本", "x"], ["abc", ""]], Look())) == [
        "A     B",
        "日本  x",
        "abc   -",
    ]
