"""What docs/agent.md says, held against the code."""

from __future__ import annotations

import re
from pathlib import Path

from kvstore.agent.exits import EXIT_MEANINGS
from kvstore.agent.file import parse_config

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "agent.md").read_text()


def test_exit_codes() -> None:
    section = PAGE.split("## Exit codes of the agent")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE))
    assert rows == {str(int(code)): meaning for code, meaning in EXIT_MEANINGS.items()}


def test_the_file_can_be_read() -> None:
    section = PAGE.split("## Many services from one file")[1]
    text = section.split("```yaml\n")[1].split("```")[0]
    payment, db = parse_config(text.encode(), "docs/agent.md").services
    assert [check.title for check in payment.checks] == ["ready", "tcp", "grpc", "cmd", "ttl"]
    assert (db.service, db.address) == ("db", "10.0.1.9")
