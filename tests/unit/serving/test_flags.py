"""The flag table: complete against etcd's list, equal defaults, and in step with the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.serving.flag import Kind
from kvstore.serving.flagdoc import help_text, markdown
from kvstore.serving.flags import FLAGS, FLAGS_BY_NAME
from kvstore.serving.settings import UsageError, read_settings

ROOT = Path(__file__).parents[3]


def etcd_flags() -> dict[str, str]:
    lines = (ROOT / "tests/data/etcd_flags.txt").read_text().splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: "" if default == "-" else default for name, default in pairs}


def test_every_flag_of_etcd_is_in_the_table_with_its_default() -> None:
    wanted = etcd_flags()
    assert len(wanted) > 120
    ours = {name: FLAGS_BY_NAME[name].default for name in wanted if name in FLAGS_BY_NAME}
    # The members' hashes are compared unless told not to: the one default that is not etcd's.
    wanted["experimental-compact-hash-check-enabled"] = "true"
    assert ours == wanted


def test_the_document_is_what_the_table_says() -> None:
    assert (ROOT / "docs/flags.md").read_text() == markdown(), (
        "run: python -m kvstore.serving.flagdoc docs/flags.md"
    )


def test_the_document_has_every_name() -> None:
    text = markdown()
    assert [name for name in etcd_flags() if f"`--{name}`" not in text] == []


def test_help_shows_exactly_what_is_implemented() -> None:
    shown = {line.split()[0] for line in help_text().splitlines() if line.startswith("  --")}
    assert shown == {f"--{flag.name}" for flag in FLAGS if flag.kind is Kind.IMPLEMENTED}


def other_value(name: str) -> str:
    flag = FLAGS_BY_NAME[name]
    if name == "metrics":
        return "extensive"
    return {
        "true|false": "false" if flag.default == "true" else "true",
        "number": "7",
        "duration": "77s",
        "text": "another",
        "list": "another",
    }[flag.type.value]


REFUSED = [name for name, flag in FLAGS_BY_NAME.items() if flag.kind is Kind.REFUSED]
HARMLESS = [name for name, flag in FLAGS_BY_NAME.items() if flag.kind is Kind.HARMLESS]


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_flag_is_refused_with_its_reason_but_its_default_is_not(name: str) -> None:
    flag = FLAGS_BY_NAME[name]
    with pytest.raises(UsageError, match="is refused") as caught:
        read_settings([f"--{name}={other_value(name)}"], {})
    assert flag.reason in str(caught.value)
    assert f"--{name}" in str(caught.value)
    assert read_settings([f"--{name}={flag.default}"], {}).notes == ()


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_flag_is_accepted_and_noted_once(name: str) -> None:
    flag = FLAGS_BY_NAME[name]
    settings = read_settings([f"--{name}={other_value(name)}"], {})
    assert settings.notes == (f"--{name} is accepted without effect: {flag.reason}",)
    assert read_settings([f"--{name}={flag.default}"], {}).notes == ()


@pytest.mark.parametrize(
    "name",
    sorted(
        n
        for n in etcd_flags()
        if any(
            word in n
            for word in ("cert", "tls", "crl", "cipher", "auth", "bcrypt", "key-file", "ca-file")
        )
    ),
)
def test_a_security_flag_is_never_harmless(name: str) -> None:
    assert FLAGS_BY_NAME[name].kind is not Kind.HARMLESS
