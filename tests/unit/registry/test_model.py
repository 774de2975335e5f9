"""Instances as values: JSON both ways, statuses and their projection, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.checks.spec import Check, distinct
from kvstore.registry import limits
from kvstore.registry.model import (
    EDS_HEALTH,
    Instance,
    Invalid,
    Reason,
    Status,
    check,
    consul_status,
    decode,
    encode,
    eureka_status,
    is_routable,
    to_json,
)
from kvstore.registry.names import InstanceName
from tests.unit.checks.test_spec import CHECKS

NAME = InstanceName("default", "payment", "payment-1")
labels = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
KNOWN = frozenset(
    to_json(Instance(namespace="a", service="b", id="c", address="d", ports={"e": 1}))
)
KNOWN |= {"drain_s", "lease", "check", "checks"}


def unnamed(checks: Iterable[Check]) -> Iterator[Check]:
    return (replace(check, name="") for check in checks)


instances = st.builds(
    Instance,
    namespace=st.just(NAME.namespace),
    service=st.just(NAME.service),
    id=st.just(NAME.id),
    address=st.sampled_from(["10.0.0.1", "::1", "host.example"]),
    ports=st.dictionaries(labels, st.integers(1, 65_535), min_size=1, max_size=4),
    zone=texts,
    region=texts,
    version=texts,
    weight=st.integers(0, limits.WEIGHT_MAX),
    tags=st.lists(texts, max_size=4).map(tuple),
    metadata=st.dictionaries(texts, texts, max_size=4),
    reported=st.sampled_from(Status),
    override=st.none() | st.sampled_from(Status),
    silent=st.booleans(),
    stale=st.booleans(),
    ttl_s=st.integers(1, 1000),
    grace_s=st.integers(0, 1000),
    drain_s=st.none() | st.integers(0, 1000),
    lease=st.integers(0, 2**63 - 1),
    registered_ms=st.integers(0, 2**42),
    changed_ms=st.integers(0, 2**42),
    reason=st.builds(Reason, labels, texts),
    check=st.none() | st.dictionaries(texts, json_values, max_size=3),
    checks=st.lists(CHECKS, max_size=2).map(lambda checks: distinct(unnamed(checks))),
    extra=st.dictionaries(texts.filter(lambda name: name not in KNOWN), json_values, max_size=3),
)


def instance(**fields: Any) -> Instance:
    base = Instance(
        namespace=NAME.namespace,
        service=NAME.service,
        id=NAME.id,
        address="10.0.0.1",
        ports={"http": 8080},
        ttl_s=10,
        grace_s=30,
    )
    return replace(base, **fields)


@given(instances)
def test_json_gives_the_instance_back_unknown_fields_and_all(given_: Instance) -> None:
    value = encode(given_)
    back = decode(value, NAME)
    # A name that shares its number with the main port cannot be told from it.
    assert replace(back, ports=given_.ports) == given_
    assert dict(back.ports) == dict(given_.ports)
    assert back.port == given_.port
    assert encode(back) == value


@given(instances)
def test_the_value_is_sorted_and_compact_and_tells_the_status(given_: Instance) -> None:
    value = encode(given_)
    told = json.loads(value)
    again = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert again.encode() == value
    assert told["status"] == given_.status


@given(st.sampled_from(Status), st.none() | st.sampled_from(Status), st.booleans())
def test_status_is_the_override_or_down_when_silent_or_as_reported(
    reported: Status, override: Status | None, silent: bool
) -> None:
    status = instance(reported=reported, override=override, silent=silent, stale=True).status
    expected = override or (Status.DOWN if silent else reported)
    assert status is expected


@pytest.mark.parametrize(
    ("status", "eureka", "consul", "eds", "routable", "by_policy"),
    [
        (Status.STARTING, "STARTING", "critical", 2, False, False),
        (Status.UP, "UP", "passing", 1, True, True),
        (Status.DEGRADED, "UP", "warning", 5, True, True),
        (Status.DRAINING, "OUT_OF_SERVICE", "critical", 3, False, False),
        (Status.OUT_OF_SERVICE, "OUT_OF_SERVICE", "critical", 3, False, False),
        (Status.DOWN, "DOWN", "critical", 2, False, False),
        (Status.UNKNOWN, "UNKNOWN", "", 0, False, True),
    ],
)
def test_every_status_has_its_word_in_every_protocol(
    status: Status, eureka: str, consul: str, eds: int, routable: bool, by_policy: bool
) -> None:
    assert eureka_status(status) == eureka
    assert consul_status(status) == consul
    assert EDS_HEALTH[status] == eds
    assert is_routable(status) is routable
    assert is_routable(status, unknown=True) is by_policy
    assert instance(reported=status).routable is routable


def test_a_value_written_by_hand_needs_an_address_and_a_port() -> None:
    found = decode(b'{"address":"10.0.0.1","port":80,"status":"DEGRADED"}', NAME)
    assert (found.ports, found.port, found.status) == ({"main": 80}, 80, Status.DEGRADED)
    assert (found.lease, found.ttl_s) == (0, 0)
    assert decode(b'{"address":"h","ports":{"a":1,"b":2},"port":2}', NAME).port == 2


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "allowed"),
        (b"[" * 60_000, "not JSON"),
        (b"[]", "not an object"),
        (b"7", "not an object"),
        (b'{"port":80}', "no address"),
        (b'{"address":"a"}', "no port"),
        (b'{"address":"a","port":0}', "1 to 65535"),
        (b'{"address":"a","port":"80"}', 'port: a whole number is expected, not "80"'),
        (b'{"address":"a","port":true}', "port: a whole number"),
        (b'{"address":"a","port":80.5}', "port: a whole number"),
        (b'{"address":"a","ports":{"a":1},"port":2}', "none of the ports"),
        (b'{"address":"a","ports":{"A_":1}}', "not a DNS label"),
        (b'{"address":"a b","port":80}', "neither an IP address nor a host name"),
        (b'{"address":7,"port":80}', "address: text is expected"),
        (b'{"address":"a","port":80,"status":"FINE"}', "status: 'FINE' is none of STARTING"),
        (b'{"address":"a","port":80,"tags":"x"}', "tags: a list"),
        (b'{"address":"a","port":80,"metadata":{"a":1}}', "metadata: text"),
        (b'{"address":"a","port":80,"metadata":null}', "metadata: an object"),
        (b'{"address":"a","port":80,"id":"other"}', "another id"),
        (b'{"address":"a","port":80,"lease":"xyz"}', "lease: "),
        (b'{"address":"a","port":80,"registered_at":"now"}', "registered_at: 'now' is not a time"),
        (b'{"address":"a","port":80,"weight":-1}', "the weight is -1"),
        (b'{"address":"a","port":80,"ttl_s":-1}', "the TTL is -1 s"),
        (b'{"address":"a","port":80,"lease":"7","ttl_s":0}', "the TTL is 0 s; 1 s to"),
        (b'{"address":"a","port":80,"zone":"\\ud800"}', "not Unicode"),
    ],
)
def test_a_value_that_is_not_an_instance_is_told_in_a_sentence(value: bytes, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        encode(decode(value, NAME))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"metadata": {"a": "x" * 17_000}}, "the metadata takes 17001 bytes; 16384 are allowed"),
        ({"tags": ("x",) * 65}, "65 tags"),
        ({"tags": ("x" * 129,)}, "the tag is 129 characters"),
        ({"zone": "x" * 129}, "the zone is 129"),
        ({"weight": 65_536}, "the weight"),
        ({"grace_s": -1}, "the grace time"),
        ({"drain_s": 10**9}, "the drain time"),
        ({"address": "x" * 254}, "the address is 254"),
        ({"ports": {f"p{n}": 1 for n in range(33)}}, "33 ports"),
        ({"reason": Reason("x", "y" * 513)}, "the reason is 513"),
    ],
)
def test_bounds(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        check(instance(**fields))


def test_a_value_is_at_most_64_kib() -> None:
    with pytest.raises(Invalid, match="65536 are allowed"):
        encode(instance(extra={"x": "y" * 65_500}))


@given(labels, texts)
def test_a_reason_fits_in_a_line(code: str, text: str) -> None:
    assert Reason.of_line(Reason(code, text).line) == Reason(code, text)
