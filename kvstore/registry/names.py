"""Names of namespaces, services and instances, what they may be, and the keys made of them.

/kvstore/services/<namespace>/<service>/<instance id>    one instance, on a lease of its own
/kvstore/settings/<namespace>/<service>                  settings of a service, optional
/kvstore/guards/<namespace>/<service>                    while a guard holds instances
/kvstore/namespaces/<namespace>                          a namespace other than `default`
/kvstore/checkers/<member id>                            a member that runs agentless checks
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kvstore.registry.limits import INSTANCE_ID_CHARS_MAX, LABEL_CHARS_MAX

__all__ = (
    "CHECKERS_PREFIX",
    "DEFAULT_NAMESPACE",
    "GUARDS_PREFIX",
    "NAMESPACES_PREFIX",
    "SERVICES_PREFIX",
    "SETTINGS_PREFIX",
    "InstanceName",
    "Invalid",
    "ServiceName",
    "check_instance_id",
    "checker_key",
    "checker_of_key",
    "check_label",
    "guard_key",
    "instance_key",
    "namespace_key",
    "namespace_of_key",
    "service_of_key",
    "service_prefix",
    "settings_key",
    "split_key",
)

DEFAULT_NAMESPACE: Final = "default"
SERVICES_PREFIX: Final = b"/kvstore/services/"
SETTINGS_PREFIX: Final = b"/kvstore/settings/"
GUARDS_PREFIX: Final = b"/kvstore/guards/"
NAMESPACES_PREFIX: Final = b"/kvstore/namespaces/"
CHECKERS_PREFIX: Final = b"/kvstore/checkers/"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_INSTANCE_ID = re.compile(r"[A-Za-z0-9._:-]+")


class Invalid(ValueError):  # noqa: N818 - what it says of a value, as elsewhere here
    """Something is not as the registry needs it; the text is a sentence for whoever sent it."""


class ServiceName(NamedTuple):
    """A service and its namespace."""

    namespace: str
    service: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}"


class InstanceName(NamedTuple):
    """An instance and where it belongs."""

    namespace: str
    service: str
    id: str

    @property
    def of(self) -> ServiceName:
        """The service."""
        return ServiceName(self.namespace, self.service)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}/{self.id}"


def check_label(name: str, what: str) -> str:
    """A name that can stand in DNS; `what` says whose it is. Returns it or raises Invalid."""
    if not name:
        raise Invalid(f"the {what} has no name")
    if len(name) > LABEL_CHARS_MAX:
        raise Invalid(
            f"the {what} name {_shown(name)} is {len(name)} characters long; "
            f"{LABEL_CHARS_MAX} are allowed"
        )
    if not _LABEL.fullmatch(name):
        raise Invalid(
            f"the {what} name {_shown(name)} is not a DNS label: use lower-case letters, digits "
            "and inner hyphens"
        )
    return name


def check_instance_id(name: str) -> str:
    """An instance id. Returns it or raises Invalid."""
    if not name:
        raise Invalid("the instance has no id")
    if len(name) > INSTANCE_ID_CHARS_MAX:
        raise Invalid(
            f"the instance id {_shown(name)} is {len(name)} characters long; "
            f"{INSTANCE_ID_CHARS_MAX} are allowed"
        )
    if not _INSTANCE_ID.fullmatch(name):
        raise Invalid(
            f"the instance id {_shown(name)} holds other characters than letters, digits and "
            "any of . _ : -"
        )
    return name


def _shown(name: str) -> str:
    return repr(name if len(name) <= LABEL_CHARS_MAX else name[:LABEL_CHARS_MAX] + "…")


def instance_key(name: InstanceName) -> bytes:
    """Where an instance stands."""
    return SERVICES_PREFIX + f"{name.namespace}/{name.service}/{name.id}".encode()


def service_prefix(name: ServiceName) -> bytes:
    """What the keys of all instances of a service begin with."""
    return SERVICES_PREFIX + f"{name.namespace}/{name.service}/".encode()


def settings_key(name: ServiceName) -> bytes:
    """Where the settings of a service stand."""
    return SETTINGS_PREFIX + f"{name.namespace}/{name.service}".encode()


def guard_key(name: ServiceName) -> bytes:
    """Where it is written that a guard holds instances of a service."""
    return GUARDS_PREFIX + f"{name.namespace}/{name.service}".encode()


def namespace_key(namespace: str) -> bytes:
    """Where a namespace is declared."""
    return NAMESPACES_PREFIX + namespace.encode()


def split_key(key: bytes) -> InstanceName:
    """The name that an instance's key tells. Raises Invalid for a key that is none."""
    parts = _parts(key, SERVICES_PREFIX)
    if len(parts) != 3:
        raise Invalid(f"the key {key!r:.200} is not <namespace>/<service>/<instance id>")
    check_label(parts[0], "namespace")
    check_label(parts[1], "service")
    check_instance_id(parts[2])
    return InstanceName(*parts)


def service_of_key(key: bytes, prefix: bytes) -> ServiceName:
    """The service that a key of settings or of a guard is about. Raises Invalid."""
    parts = _parts(key, prefix)
    if len(parts) != 2:
        raise Invalid(f"the key {key!r:.200} is not <namespace>/<service>")
    check_label(parts[0], "namespace")
    check_label(parts[1], "service")
    return ServiceName(*parts)


def namespace_of_key(key: bytes) -> str:
    """The namespace that a key declares. Raises Invalid."""
    parts = _parts(key, NAMESPACES_PREFIX)
    if len(parts) != 1:
        raise Invalid(f"the key {key!r:.200} is not that of a namespace")
    return check_label(parts[0], "namespace")


def checker_key(member_id: int) -> bytes:
    """The key by which a member says that it runs checks."""
    return CHECKERS_PREFIX + f"{member_id:x}".encode()


def checker_of_key(key: bytes) -> int:
    """The member that says so. Raises Invalid."""
    (text,) = _parts(key, CHECKERS_PREFIX) if key.count(b"/") == 3 else ("",)
    if not re.fullmatch(r"[0-9a-f]{1,16}", text):
        raise Invalid(f"the key {key!r:.200} is not that of a member")
    return int(text, 16)


def _parts(key: bytes, prefix: bytes) -> list[str]:
    try:
        return key.removeprefix(prefix).decode().split("/")
    except UnicodeDecodeError as error:
        raise Invalid(f"the key {key!r:.200} is not UTF-8") from error
