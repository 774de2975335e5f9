"""Generates kvstore/pb from the .proto files beside this script (`--check`: only compares).

Two things are changed in what protoc writes. Imports become absolute, so the modules live in a
package. And every file registers in a DescriptorPool of our own: in the default pool a second
etcd client in the same process (`import aetcd`) fails with "duplicate symbol".
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "kvstore" / "pb"
PROTOS = ("kv", "auth", "rpc", "v3lock", "v3election", "health", "reflection", "registry")


def compile_protos(out: Path) -> None:
    """Runs protoc over all files; raises SystemExit with protoc's own message on failure."""
    from grpc_tools import protoc

    files = [f"{name}.proto" for name in PROTOS]
    arguments = ["protoc", f"-I{HERE}", f"--python_out={out}", f"--pyi_out={out}", *files]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed; its message stands above")


def adapt(text: str) -> str:
    """Makes one generated module importable from kvstore.pb and private to it."""
    text = re.sub(r"^import (\w+_pb2) as", r"from kvstore.pb import \1 as", text, flags=re.M)
    return text.replace(
        "from google.protobuf import descriptor_pool as _descriptor_pool",
        "from kvstore.pb import pool as _descriptor_pool",
    )


def main() -> int:
    """Writes or compares; returns 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    differing = []
    with tempfile.TemporaryDirectory() as scratch:
        compile_protos(Path(scratch))
        for produced in sorted(Path(scratch).iterdir()):
            wanted = adapt(produced.read_text())
            target = TARGET / produced.name
            if target.exists() and target.read_text() == wanted:
                continue
            differing.append(target.name)
            if not check:
                target.write_text(wanted)
    if check and differing:
        print(f"kvstore/pb differs from protos/: {', '.join(differing)}; run `make protos`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
