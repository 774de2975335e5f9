"""Names, and the keys made of them."""

from __future__ import annotations

import pytest

from kvstore.machine import MachineConfig
from kvstore.registry import names
from kvstore.registry.names import InstanceName, Invalid, ServiceName


@pytest.mark.parametrize("name", ["a", "0", "payment", "a-b", "a" * 63, "x--y"])
def test_dns_labels(name: str) -> None:
    assert names.check_label(name, "service") == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "the service has no name"),
        ("a" * 64, "64 characters long; 63 are allowed"),
        ("A", "not a DNS label"),
        ("-a", "not a DNS label"),
        ("a-", "not a DNS label"),
        ("a.b", "not a DNS label"),
        ("a\n", "not a DNS label"),
        ("ä", "not a DNS label"),
    ],
)
def test_what_is_no_dns_label(name: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        names.check_label(name, "service")


@pytest.mark.parametrize("name", ["payment-1", "10.0.0.1:80", "A_b", "x" * 128])
def test_instance_ids(name: str) -> None:
    assert names.check_instance_id(name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a/b", "a b", "ä", "a\n"])
def test_what_is_no_instance_id(name: str) -> None:
    with pytest.raises(Invalid, match="instance"):
        names.check_instance_id(name)


def test_a_key_tells_its_name() -> None:
    name = InstanceName("default", "payment", "payment-1")
    key = names.instance_key(name)
    assert key == b"/kvstore/services/default/payment/payment-1"
    assert names.split_key(key) == name
    assert key.startswith(names.service_prefix(name.of))
    assert str(name) == "default/payment/payment-1"
    assert str(name.of) == "default/payment"


@pytest.mark.parametrize("key", [b"a/b", b"a/b/c/d", b"A/b/c", b"a/B/c", b"a/b/", b"a/b/\xff"])
def test_what_is_no_key_of_an_instance(key: bytes) -> None:
    with pytest.raises(Invalid):
        names.split_key(names.SERVICES_PREFIX + key)


def test_keys_of_services_and_namespaces() -> None:
    service = ServiceName("a", "b")
    for make, prefix in (
        (names.settings_key, names.SETTINGS_PREFIX),
        (names.guard_key, names.GUARDS_PREFIX),
    ):
        assert names.service_of_key(make(service), prefix) == service
        for wrong in (prefix + b"a", prefix + b"a/b/c", prefix + b"a/B"):
            with pytest.raises(Invalid):
                names.service_of_key(wrong, prefix)
    assert names.namespace_of_key(names.namespace_key("team")) == "team"
    with pytest.raises(Invalid):
        names.namespace_of_key(names.NAMESPACES_PREFIX + b"a/b")


def test_the_journal_is_kept_of_instances() -> None:
    assert MachineConfig().journal_prefix == names.SERVICES_PREFIX


def test_keys_of_members_that_check() -> None:
    assert names.checker_key(0xAB12) == b"/kvstore/checkers/ab12"
    assert names.checker_of_key(b"/kvstore/checkers/ab12") == 0xAB12
    for wrong in (b"", b"AB", b"ab/1", b"0123456789abcdef0", b"x", b"\xff"):
        with pytest.raises(Invalid):
            names.checker_of_key(names.CHECKERS_PREFIX + wrong)
