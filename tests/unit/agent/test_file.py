"""The file of services: what it may say, and every mistake with its line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.agent.config import AgentConfig, BadConfig
from kvstore.agent.file import parse_config, read_config
from kvstore.checks.spec import Check, CommandProbe, GrpcProbe, HttpProbe, TcpProbe, TtlProbe

EVERYTHING = """
command: [./serve, --all]
stop_timeout: 1m
stop_with_agent: false
services:
  - service: payment
    namespace: shop
    id: payment-1
    address: 10.0.1.6
    ports: {http: 8080, admin: 9090}
    ttl: 5s
    grace: 1m
    drain: 2500ms
    zone: a
    region: eu
    version: 1.10
    weight: 3
    tags: [blue, 7]
    meta: {team: pay, on-call: no}
    command: [./payment]
    checks:
      - http: /healthz
        name: ready
        method: HEAD
        headers: {X-Probe: "1"}
        expected: [200, 204]
        interval: 5s
        timeout: 500ms
        healthy_after: 2
        unhealthy_after: 4
      - tcp:
      - tcp: db.example:5432
      - grpc: 127.0.0.1:9000/pay.Pay
      - grpc:
        service: other
      - cmd: [./check.sh, --fast]
      - ttl: /run/alive
        max_age: 30s
  - service: small
    port: 81
"""


def parse(text: str) -> AgentConfig:
    return parse_config(text.encode(), "services.yaml")


def test_everything_that_can_be_said() -> None:
    config = parse(EVERYTHING)
    assert config.command == ("./serve", "--all")
    assert (config.stop_timeout_s, config.stop_with_agent) == (60.0, False)
    payment, small = config.services
    assert (payment.namespace, payment.service, payment.id) == ("shop", "payment", "payment-1")
    assert (payment.address, dict(payment.ports)) == ("10.0.1.6", {"http": 8080, "admin": 9090})
    assert (payment.ttl_s, payment.grace_s, payment.drain_s) == (5, 60, 2.5)
    assert (payment.zone, payment.region, payment.version) == ("a", "eu", "1.10")
    assert (payment.weight, payment.tags) == (3, ("blue", "7"))
    assert payment.metadata == {"team": "pay", "on-call": "no"}
    assert payment.command == ("./payment",)
    assert payment.checks[0] == Check(
        HttpProbe("/healthz", "HEAD", {"X-Probe": "1"}, (200, 204)), "ready", 5.0, 0.5, 2, 4
    )
    assert [check.probe for check in payment.checks[1:]] == [
        TcpProbe(),
        TcpProbe("db.example:5432"),
        GrpcProbe("127.0.0.1:9000", "pay.Pay"),
        GrpcProbe("", "other"),
        CommandProbe(("./check.sh", "--fast")),
        TtlProbe("/run/alive", 30.0),
    ]
    titles = [check.title for check in payment.checks]
    assert titles == ["ready", "tcp", "tcp-2", "grpc", "grpc-2", "cmd", "ttl"]
    assert (small.ports, small.ttl_s, small.grace_s, small.drain_s) == ({"main": 81}, 10, 30, 5.0)
    assert (small.namespace, small.id, small.address, small.checks) == ("default", "", "", ())


ONE = "services:\n  - service: payment\n    port: 8080\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "services.yaml: the file is empty; it needs a list of services"),
        ("services: [", "services.yaml:1: not YAML: "),
        ("a: b: c", "services.yaml:1: not YAML: mapping values are not allowed here"),
        ("\tx", "services.yaml:1: not YAML"),
        ("- a", "services.yaml:1: fields are expected"),
        ("command: [a]", "services.yaml:1: services is missing"),
        ("services: []", "services.yaml:1: services: there is no service in it"),
        ("services: payment", "services.yaml:1: services: a list is expected"),
        ("services:\n  - payment", "services.yaml:2: services[0]: fields are expected"),
        (ONE + "service: x", "services.yaml:4: service: there is no such field; is it services?"),
        (
            ONE + "    prot: 1",
            "services.yaml:4: services[0].prot: there is no such field; is it port?",
        ),
        (ONE + "    port: 1", "services.yaml:4: services[0]: port is given twice"),
        (ONE + "    ports: {a: 1}", "services.yaml:2: services[0]: give either port or ports"),
        ("services:\n  - service: a", "services.yaml:2: services[0]: give either port or ports"),
        ("services:\n  - port: 1", "services.yaml:2: services[0]: service is missing"),
        (
            "services:\n  - service: a\n    port: 70000",
            "services.yaml:3: services[0].port: 70000 is not a port: 1 to 65535 are",
        ),
        (
            'services:\n  - service: a\n    port: "80"',
            "services.yaml:3: services[0].port: a whole number is expected",
        ),
        (
            "services:\n  - service: a\n    ports: {A: 1}",
            "services.yaml:3: services[0].ports.A: 'A' is not a name",
        ),
        (
            "services:\n  - service: Pay_ment\n    port: 1",
            "services.yaml:2: services[0].service: 'Pay_ment' is not a name",
        ),
        (ONE + "    ttl: 0s", "services.yaml:4: services[0].ttl: 0s is too short"),
        (ONE + "    ttl: 10", "services.yaml:4: services[0].ttl: '10' is not a duration"),
        (ONE + "    ttl: 1.5s", "services.yaml:4: services[0].ttl: 1.5s is not a whole number"),
        (ONE + "    tags: a", "services.yaml:4: services[0].tags: a list is expected"),
        (ONE + "    tags: [[a]]", "services.yaml:4: services[0].tags[0]: a text is expected"),
        (ONE + "    meta: {a: {b: c}}", "services.yaml:4: services[0].meta.a: a text is expected"),
        (ONE + "    command: ls -l", "services.yaml:4: services[0].command: a list is expected"),
        (
            ONE + "    checks:\n      - interval: 1s",
            "services.yaml:5: services[0].checks[0]: a check needs exactly one of http, tcp",
        ),
        (
            ONE + "    checks:\n      - tcp:\n        interval: 1ms",
            "services.yaml:5: services[0].checks[0]: check 'tcp': the interval is 0.001 s",
        ),
        (
            ONE + "    checks:\n      - http: ftp://x",
            "services.yaml:5: services[0].checks[0]: check 'http': 'ftp://x' is neither",
        ),
        (
            ONE + "    checks:\n      - tcp:\n        method: GET",
            "services.yaml:6: services[0].checks[0].method: there is no such field",
        ),
        (
            ONE + "    checks:\n      - ttl: /run/x",
            "services.yaml:5: services[0].checks[0]: max_age is missing",
        ),
        (
            ONE + "    checks: [{tcp: a:1, name: x}, {tcp: a:2, name: x}]",
            "services.yaml:4: services[0].checks: there are two checks called 'x'",
        ),
        (ONE + "stop_with_agent: maybe", "services.yaml:4: stop_with_agent: true or false"),
        ("&a [*a]", "services.yaml:1: "),
    ],
)
def test_mistakes_are_told_with_line_and_field(text: str, error: str) -> None:
    with pytest.raises(BadConfig) as refused:
        parse(text)
    assert str(refused.value).startswith(error)


def test_a_file_that_is_too_large_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    with pytest.raises(FileNotFoundError):
        read_config(file)
    file.write_bytes(b"#" * (1024**2 + 1))
    with pytest.raises(BadConfig, match="larger than"):
        read_config(file)
    file.write_text(ONE)
    assert read_config(file).services[0].service == "payment"
