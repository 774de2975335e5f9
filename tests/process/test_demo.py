"""The demo of examples/demo, from its start to its end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("perl") is None, reason="no perl"),
]
# Below the ports that outgoing connections take, apart from those of other tests.
BASE = 14_000 + os.getpid() % 500 * 4


def processes_in(directory: Path) -> list[str]:
    """Command lines of what runs in a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve() == directory:
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


def test_traffic_moves_when_one_of_three_is_killed(tmp_path: Path) -> None:
    demo = subprocess.run(
        [str(ROOT / "examples/demo/run"), f"--base-port={BASE}", f"--directory={tmp_path}"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    parts = re.split(r"^── ", demo.stdout, flags=re.MULTILINE)
    by_title = {part.split("\n")[0].split(" ")[0]: part for part in parts}
    for name in ("python", "perl", "shell"):
        assert re.search(rf"{name} \d+", by_title["Called"]), by_title["Called"]
    killed = by_title["kill"]
    assert "python did not answer" in killed
    assert re.search(r"python +127\.0\.0\.1:\d+ +DOWN", killed), killed
    assert killed.count("greeting.default.svc.kv.local.\n") == 2  # DNS knows the other two
    assert re.search(r"python \d+", by_title["It"]), by_title["It"]
    last = by_title["SIGTERM"].split("$ dig")[0].strip().splitlines()[-1]
    assert "perl" not in last
    assert "python" in last
    assert re.search(r"^\d+ calls, 0 failed$", by_title["What"], re.MULTILINE), demo.stdout
    assert "everything that was started is ended" in demo.stdout
    assert processes_in(tmp_path) == []
