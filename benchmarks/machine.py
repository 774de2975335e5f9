"""The machine and the versions that a result was made with."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.sides import Kind
from tests.support.servers import ROOT

__all__ = ("describe",)

_PACKAGES = ("uvloop", "hpack", "lmdb", "msgpack", "pygrpc-native", "grpcio", "protobuf")


def describe(kinds: tuple[Kind, Kind], directory: Path) -> dict[str, Any]:
    """What somebody needs to judge the figures or to make them again."""
    cpu = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = Path("/proc/meminfo").read_text().split(maxsplit=2)[1]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory) / 2**20, 1),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "fdatasync_ms": _fdatasync_ms(directory),
        "python": f"{platform.python_version()} ({_build()})",
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": commit,
        "versions": {kind.name: kind.version() for kind in kinds},
    }


def _build() -> str:
    """Whose build of Python this is: a distribution's is profile-guided, others often are not."""
    base = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    if os.path.dirname(base) not in ("/usr/bin", "/bin"):
        return "built here"
    return f"{platform.freedesktop_os_release().get('NAME', 'the system')} package"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _fdatasync_ms(directory: Path) -> float:
    """Median time of writing 4 KiB to the disk of the data, in milliseconds."""
    times = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(bytes(4096 * 50))
        os.fsync(file.fileno())
        for number in range(50):
            began = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(4096), 4096 * number)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1000, 3)
