"""Collects settings from the command line, the environment and a YAML file.

A flag beats its environment variable; the configuration file beats both. (etcd ignores flags and
variables altogether when a file is given; here those that the file does not mention still count.)
The command line is read by Go's rules: `-x` and `--x`, `--x=v` and `--x v`, while a boolean flag
takes its value after `=` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from kvstore.serving.flag import Flag, FlagType, Kind, Value
from kvstore.serving.flags import FLAGS, FLAGS_BY_NAME, env_name
from kvstore.serving.values import BadValueError

__all__ = ("Settings", "UsageError", "read_settings")

_MAX_CONFIG_BYTES = 1024 * 1024
_INT_BITS_MAX = 64

_SECURITY_SECTIONS: Mapping[str, Mapping[str, str]] = {
    "client-transport-security": {
        "cert-file": "cert-file",
        "key-file": "key-file",
        "client-cert-file": "client-cert-file",
        "client-key-file": "client-key-file",
        "client-cert-auth": "client-cert-auth",
        "trusted-ca-file": "trusted-ca-file",
        "auto-tls": "auto-tls",
        "crl-file": "client-crl-file",
        "allowed-hostname": "client-cert-allowed-hostname",
        "allowed-hostnames": "client-cert-allowed-hostname",
    },
    "peer-transport-security": {
        "cert-file": "peer-cert-file",
        "key-file": "peer-key-file",
        "client-cert-file": "peer-client-cert-file",
        "client-key-file": "peer-client-key-file",
        "client-cert-auth": "peer-client-cert-auth",
        "trusted-ca-file": "peer-trusted-ca-file",
        "auto-tls": "peer-auto-tls",
        "crl-file": "peer-crl-file",
        "allowed-cn": "peer-cert-allowed-cn",
        "allowed-cns": "peer-cert-allowed-cn",
        "allowed-hostname": "peer-cert-allowed-hostname",
        "allowed-hostnames": "peer-cert-allowed-hostname",
        "skip-client-san-verification": "peer-skip-client-san-verification",
    },
    "socket-options": {
        "reuse-port": "socket-reuse-port",
        "reuse-address": "socket-reuse-address",
    },
}
"""Sections of etcd's configuration file: their keys and the flags that these are."""


class UsageError(Exception):
    """The settings are wrong or refused: exit code 2. The message is a sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every flag's value, and where those that were given came from."""

    values: Mapping[str, Value]
    given: Mapping[str, str]
    """Flag name to its origin in words: `--name`, `KVSTORE_NAME`, `node.yaml: name`."""
    notes: tuple[str, ...] = ()
    """What to log once: settings without effect here, and settings that lost to the file."""

    def text(self, name: str) -> str:
        value = self.values[name]
        assert isinstance(value, str), name
        return value

    def flag(self, name: str) -> bool:
        value = self.values[name]
        assert isinstance(value, bool), name
        return value

    def int(self, name: str) -> int:
        value = self.values[name]
        assert isinstance(value, int), name
        return value

    def seconds(self, name: str) -> float:
        value = self.values[name]
        assert isinstance(value, float), name
        return value

    def list(self, name: str) -> tuple[str, ...]:
        value = self.values[name]
        assert isinstance(value, tuple), name
        return value

    def origin(self, name: str) -> str:
        """How to call the setting in a message: where it was given, or its flag."""
        return self.given.get(name, f"--{name}")


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """All settings by their precedence; raises UsageError."""
    values: dict[str, Value] = {flag.name: flag.default_value for flag in FLAGS}
    given: dict[str, str] = {}
    notes: list[str] = []
    for source in (_from_environment(environ, notes), _from_arguments(argv)):
        for name, (value, origin) in source.items():
            values[name] = value
            given[name] = origin
    path = values["config-file"]
    if isinstance(path, str) and path:
        for name, (value, origin) in _from_file(Path(path)).items():
            if name in given and values[name] != value:
                notes.append(f"{origin} overrides {given[name]}")
            values[name] = value
            given[name] = origin
    for name, origin in given.items():
        note = _judge(FLAGS_BY_NAME[name], values[name], origin)
        if note:
            notes.append(note)
    return Settings(values, given, tuple(notes))


_Given = dict[str, tuple[Value, str]]


def _judge(flag: Flag, value: Value, origin: str) -> str:
    """Refuses a refused setting; returns what to log about one that has no effect here."""
    if flag.kind is Kind.IMPLEMENTED or value == flag.default_value:
        return ""
    if flag.kind is Kind.REFUSED:
        raise UsageError(f"{origin} is refused: {flag.reason}")
    return f"{origin} is accepted without effect: {flag.reason}"


def _parse(flag: Flag, text: str, origin: str) -> Value:
    try:
        return flag.parse(text)
    except BadValueError as problem:
        raise UsageError(f"{origin}: {problem}") from None


def _from_arguments(argv: Sequence[str]) -> _Given:
    given: _Given = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            hint = ""
            if word in ("true", "false"):
                hint = " (a boolean flag takes its value after '=', as in --pre-vote=false)"
            raise UsageError(f"serve takes flags only, so {word!r} is one word too many{hint}")
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        flag = FLAGS_BY_NAME.get(name)
        if flag is None:
            raise UsageError(f"there is no flag --{name}{_suggestion(name)}")
        origin = f"--{name}"
        if flag.type is FlagType.BOOL:
            text = text if equals else "true"
        elif not equals:
            if not rest:
                raise UsageError(f"{origin} needs a value ({flag.type.value})")
            text = rest.pop(0)
        given[flag.name] = (_parse(flag, text, origin), origin)
    return given


def _suggestion(name: str) -> str:
    close = get_close_matches(name, FLAGS_BY_NAME, n=1)
    return f"; did you mean --{close[0]}?" if close else "; `kvstore serve --help` lists them"


def _from_environment(environ: Mapping[str, str], notes: list[str]) -> _Given:
    given: _Given = {}
    known = {env_name(name): flag for name, flag in FLAGS_BY_NAME.items()}
    for variable in sorted(environ):
        if not variable.startswith("KVSTORE_") or not environ[variable]:
            continue
        flag = known.get(variable)
        if flag is not None:
            given[flag.name] = (_parse(flag, environ[variable], variable), variable)
            continue
        # Other parts of kvstore have variables too, so only what looks mistyped is worth a word.
        close = get_close_matches(variable, known, n=1, cutoff=0.85)
        if close:
            notes.append(f"{variable} is not a setting of serve; did you mean {close[0]}?")
    return given


def _from_file(path: Path) -> _Given:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the file {path}: {error.strerror}") from None
    if len(raw) > _MAX_CONFIG_BYTES:
        raise UsageError(f"the file {path} is too large for a configuration (over 1 MiB)")
    try:
        document = yaml.safe_load(raw)
    except Exception as error:
        # Not YAMLError alone: what values mean (dates, numbers) fails as it fails in Python, and
        # nesting without end is a RecursionError.
        raise UsageError(f"the file {path} is not YAML: {error or type(error).__name__}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"the file {path} must be a map of settings, such as `name: infra0`")
    given: _Given = {}
    for key, value in document.items():
        if not isinstance(key, str):
            raise UsageError(f"{path}: a setting's name must be a text, not a {type(key).__name__}")
        section = _SECURITY_SECTIONS.get(key)
        if section is None:
            _take(given, key, FLAGS_BY_NAME.get(key), value, path)
            continue
        if value is not None and not isinstance(value, dict):
            raise UsageError(f"{path}: {key} must be a map of settings")
        for inner, inner_value in (value or {}).items():
            if not isinstance(inner, str):
                raise UsageError(f"{path}: a setting's name in {key} must be a text")
            flag = FLAGS_BY_NAME.get(section.get(inner, ""))
            _take(given, f"{key}.{inner}", flag, inner_value, path)
    return given


def _take(given: _Given, key: str, flag: Flag | None, value: Any, path: Path) -> None:
    """Adds one key of the file. An empty value means the default, as in etcd's sample file."""
    if flag is None:
        raise UsageError(f"{path}: there is no setting {key!r}{_file_suggestion(key)}")
    if flag.name in ("config-file", "version"):
        raise UsageError(f"{path}: {key!r} can only be given on the command line")
    if value is None:
        return
    origin = f"{path}: {key}"
    if flag.name == "feature-gates" and isinstance(value, dict):
        origins = f"{path}: {key}"
        value = [
            f"{_yaml_text(name, flag, origins)}={_yaml_text(state, flag, origins)}"
            for name, state in value.items()
        ]
    if isinstance(value, list) and flag.type is FlagType.LIST:
        given[flag.name] = (tuple(_yaml_text(item, flag, origin) for item in value), origin)
        return
    text = _yaml_text(value, flag, origin)
    if flag.type is FlagType.DURATION and isinstance(value, int) and not isinstance(value, bool):
        # etcd's file gives durations as Go does in JSON: a bare number is nanoseconds.
        text += "ns"
    if flag.name == "proxy" and value is False:
        text = "off"  # what YAML makes of an unquoted off
    given[flag.name] = (_parse(flag, text, origin), origin)


def _yaml_text(value: object, flag: Flag, origin: str) -> str:
    """A single value as it would stand behind a flag; raises UsageError for anything else."""
    if not isinstance(value, str | int | float | bool):
        # Not shown: with references a few lines may stand for gigabytes.
        raise UsageError(f"{origin} must be a single value ({flag.type.value})")
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{origin} has a zero byte in it")
    if isinstance(value, int) and value.bit_length() > _INT_BITS_MAX:
        raise UsageError(f"{origin} is not a number of 64 bits")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _file_suggestion(key: str) -> str:
    close = get_close_matches(key, [*FLAGS_BY_NAME, *_SECURITY_SECTIONS], n=1)
    return f"; did you mean {close[0]}?" if close else ""
