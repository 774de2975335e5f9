"""Checks that the cluster is to run, as a command line and JSON describe them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvstore.agent.config import BadConfig, distinct_checks, parse_probe
from kvstore.checks import spec
from kvstore.cli.exits import bad_args
from kvstore.client.registry.values import Check, GrpcCheck, HttpCheck, Probe, TcpCheck

__all__ = ("of_json", "of_options")


def of_options(texts: Iterable[str]) -> tuple[Check, ...]:
    """`http://…`, `/path`, `tcp`, `tcp://host:port`, `grpc`, `grpc://host:port/service`."""
    try:
        return _values(
            distinct_checks(spec.validate(spec.Check(probe=parse_probe(each))) for each in texts)
        )
    except (BadConfig, spec.BadCheck) as error:
        raise bad_args(f"--check: {error}") from None


def of_json(told: Any) -> tuple[Check, ...]:
    """The `checks` of an instance as `get -w json` prints them."""
    if not isinstance(told, list):
        raise bad_args("the JSON's checks: a list of checks is expected")
    try:
        return _values([spec.check_of_json(each) for each in told])
    except spec.BadCheck as error:
        raise bad_args(f"the JSON's checks: {error}") from None


def _values(checks: Sequence[spec.Check]) -> tuple[Check, ...]:
    return tuple(
        Check(
            probe=_probe(each),
            name=each.name,
            interval_s=each.interval_s,
            timeout_s=each.timeout_s,
            healthy_after=each.healthy_after,
            unhealthy_after=each.unhealthy_after,
        )
        for each in checks
    )


def _probe(check: spec.Check) -> Probe:
    match check.probe:
        case spec.HttpProbe(url, method, headers, expected):
            return HttpCheck(url, method, dict(headers), tuple(expected))
        case spec.TcpProbe(target):
            return TcpCheck(target)
        case spec.GrpcProbe(target, service):
            return GrpcCheck(target, service)
        case _:
            raise bad_args(
                f"a check of the kind {check.kind} runs in an agent alone (`kvstore agent run"
                " --check …`); the cluster runs http, tcp and grpc"
            )
