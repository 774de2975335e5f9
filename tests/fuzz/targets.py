"""Every parser and every request converter of the product, in one registry.

| where bytes come from | targets |
|---|---|
| the member's own disk | `on_disk`, `command_line` (`kvstore check`) |
| other members | `between_members` |
| clients | `grpc_methods`, `front_doors`, `dns_door`, `whole_member` |
| operators | `operators`, `command_line` |
| servers, as our client sees them | `client_side` |
"""

from __future__ import annotations

from tests.fuzz import (
    between_members,
    client_side,
    command_line,
    dns_door,
    front_doors,
    grpc_methods,
    on_disk,
    operators,
    whole_member,
)
from tests.fuzz.registry import Target

__all__ = ("TARGETS",)

TARGETS: tuple[Target, ...] = (
    *on_disk.TARGETS,
    *between_members.TARGETS,
    *grpc_methods.TARGETS,
    *whole_member.TARGETS,
    *front_doors.TARGETS,
    *dns_door.TARGETS,
    *operators.TARGETS,
    *command_line.TARGETS,
    *client_side.TARGETS,
)

assert len({target.name for target in TARGETS}) == len(TARGETS), "a name twice"
