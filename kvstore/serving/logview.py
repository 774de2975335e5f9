"""Makes short lines for people out of a member's JSON log."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ("NODE_COLOURS", "Palette", "render_line")

NODE_COLOURS = ("36", "33", "35", "32", "34", "31", "37")
"""ANSI colours by which members are told apart."""

_LEVEL_COLOURS: Mapping[str, str] = {"warn": "33", "error": "31", "fatal": "31", "panic": "31"}
_MAX_FIELD = 80
_HIDDEN = frozenset(
    (
        *("level", "ts", "caller", "msg", "exit_code", "error"),
        *("protocol_version", "python", "event_loop", "transport", "member"),
        *("listen_peer_urls", "listen_client_urls", "initial_cluster_state", "has_leader"),
    )
)
"""Fields that are shown otherwise, or that the reader of a local cluster's log can do without."""


class Palette:
    """Colours, or none when the output is no terminal."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._enabled and colour else text


def render_line(raw: bytes, prefix: str, colour: str, palette: Palette) -> str:
    """`node1  12:00:01.234  message  field=value`; what is not JSON stays as it is."""
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    # Control characters of a child must not move our terminal's cursor.
    text = "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
    head = palette.paint(prefix, colour)
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict) or "msg" not in line:
        return f"{head}  {text}"
    level = str(line.get("level", "info"))
    clock = str(line.get("ts", ""))[11:23]
    message = palette.paint(str(line["msg"]), _LEVEL_COLOURS.get(level, ""))
    fields = [
        f"{name}={_short(value)}"
        for name, value in line.items()
        if name not in _HIDDEN and value not in ("", [], None)
    ]
    mark = "" if level in ("info", "debug") else f"{level}: "
    tail = f"  ({', '.join(fields)})" if fields else ""
    shown = f"{head}  {clock}  {mark}{message}{tail}"
    trace = "".join(f"\n{head}    {row}" for row in str(line.get("error", "")).splitlines())
    return shown + trace


def _short(value: object) -> str:
    if isinstance(value, list):
        value = " ".join(str(item) for item in value)
    text = str(value)
    return text if len(text) <= _MAX_FIELD else text[: _MAX_FIELD - 1] + "…"
