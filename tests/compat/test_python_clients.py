"""Other people's Python clients, each in a virtual environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import make_cluster

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CLIENTS = {
    # etcd3's generated code is of the protobuf 3 age.
    "etcd3": ("etcd3==0.12.0", "protobuf==3.20.3", "grpcio", "six", "tenacity==6.1.0"),
    "aetcd": ("aetcd==1.0.0",),
}

pytestmark = [pytest.mark.compat, pytest.mark.timeout(300)]


def environment_for(name: str) -> Path:
    """The Python of `.venv-compat-<name>`, made once and kept beside the project's own."""
    directory = ROOT / f".venv-compat-{name}"
    python = directory / "bin" / "python"
    mark = directory / ".installed"
    wanted = "\n".join(CLIENTS[name])
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        installed = subprocess.run([*pip, *CLIENTS[name]], capture_output=True, text=True)
        if installed.returncode != 0:
            text = f"{name} could not be installed: {installed.stderr[-500:]}"
            if os.environ.get("KVSTORE_REQUIRE_ALL") == "1":
                pytest.fail(text)
            pytest.skip(text)
        mark.write_text(wanted)
    return python


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_client_works_unchanged(name: str, tmp_path: Path) -> None:
    python = environment_for(name)
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    variables["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python" if name == "etcd3" else "upb"
    with make_cluster(tmp_path) as cluster:
        done = subprocess.run(
            [
                str(python),
                str(HERE / "clients" / f"use_{name}.py"),
                cluster.servers[0].endpoint,
                str(tmp_path / "snapshot.db"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env=variables,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{name}: all passed" in done.stdout
