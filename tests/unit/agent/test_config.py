"""What is typed on an agent's command line, as values."""

from __future__ import annotations

import pytest

from kvstore.agent.config import (
    BadConfig,
    check_seconds,
    default_id,
    distinct_checks,
    make_check,
    parse_pairs,
    parse_ports,
    parse_probe,
)
from kvstore.agent.program import exit_code_of
from kvstore.checks.spec import (
    Check,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    Probe,
    TcpProbe,
    TtlProbe,
)


@pytest.mark.parametrize(
    ("text", "probe"),
    [
        ("http://h:1/x", HttpProbe("http://h:1/x")),
        ("https://h/x", HttpProbe("https://h/x")),
        ("/healthz", HttpProbe("/healthz")),
        ("tcp://h:1", TcpProbe("h:1")),
        ("tcp", TcpProbe()),
        ("grpc://h:1/a.B", GrpcProbe("h:1", "a.B")),
        ("grpc://h:1", GrpcProbe("h:1")),
        ("grpc:///a.B", GrpcProbe("", "a.B")),
        ("grpc", GrpcProbe()),
        ("cmd:./check 'a b'", CommandProbe(("./check", "a b"))),
        ("ttl:30s:/run/a:b", TtlProbe("/run/a:b", 30.0)),
    ],
)
def test_checks(text: str, probe: Probe) -> None:
    assert parse_probe(text) == probe


@pytest.mark.parametrize("text", ["", "udp://h:1", "cmd", "cmd:'", "ttl:x:/a", "h:1", "ttl"])
def test_what_is_no_check(text: str) -> None:
    with pytest.raises(BadConfig):
        parse_probe(text)


def test_the_timeout_follows_a_short_interval() -> None:
    def timeout(interval_s: float, timeout_s: float | None) -> float:
        check = make_check(TcpProbe(), interval_s=interval_s, timeout_s=timeout_s, up=1, down=1)
        return check.timeout_s

    assert timeout(10.0, None) == 2.0
    assert timeout(0.5, None) == 0.5
    assert timeout(10.0, 9.0) == 9.0
    with pytest.raises(BadConfig, match="the timeout is 11 s"):
        timeout(10.0, 11.0)


def test_checks_have_names_of_their_own() -> None:
    checks = distinct_checks(Check(TcpProbe(), name) for name in ("", "tcp-2", "", ""))
    assert [check.title for check in checks] == ["tcp", "tcp-2", "tcp-3", "tcp-4"]
    with pytest.raises(BadConfig, match="17 checks"):
        distinct_checks(Check(TcpProbe(), f"c{n}") for n in range(17))


def test_ports() -> None:
    assert parse_ports(["8080"]) == {"main": 8080}
    assert list(parse_ports(["http=80", "admin=81"]).items()) == [("http", 80), ("admin", 81)]
    for wrong in (["x"], ["0"], ["65536"], ["=1"], ["a=b=1"], ["1", "2"], ["http=-1"]):
        with pytest.raises(BadConfig):
            parse_ports(wrong)


def test_pairs_and_durations() -> None:
    assert parse_pairs(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    with pytest.raises(BadConfig, match="not key=value"):
        parse_pairs(["=x"])
    assert check_seconds("1m30s") == 90.0
    for wrong in ("10", "-1s", "31d", "9000h"):
        with pytest.raises(BadConfig):
            check_seconds(wrong)


def test_an_id_is_the_same_at_every_start_and_fits_the_registry() -> None:
    assert default_id("payment", "host-1", 8080) == "payment-host-1-8080"
    assert default_id("payment", "höst é", 80) == "payment-h-st--80"
    assert default_id("payment", "", 80) == "payment-host-80"
    assert len(default_id("p" * 63, "h" * 253, 8080)) == 128


def test_exit_codes_as_a_shell_tells_them() -> None:
    assert [exit_code_of(code) for code in (0, 3, -9, -15)] == [0, 3, 137, 143]
