"""The house rules as a test: import layers, module openings, public names, leftovers."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What a package may import of ours. "Down only": nothing here names a layer above its own.
BOTTOM = {"kvstore", "kvstore.errors", "kvstore.pb", "kvstore.metrics", "kvstore.faults"}
LAYERS: dict[str, set[str]] = {
    "raft": set(),
    "kvstore.errors": set(),
    "kvstore.pb": set(),
    "kvstore.metrics": set(),
    "kvstore.faults": set(),
    "kvstore.storage": {"raft"},
    "kvstore.machine": {"raft", "kvstore.storage"},
    "kvstore.watch": {"kvstore.machine"},
    "kvstore.node": {"raft", "kvstore.storage", "kvstore.machine", "kvstore.watch"},
    "kvstore.checks": set(),
    "kvstore.registry": {"kvstore.node", "kvstore.machine", "kvstore.checks"},
    "kvstore.api": {"kvstore.registry", "kvstore.node", "kvstore.watch", "kvstore.checks"},
    "kvstore.gateways.dns": {"kvstore.registry", "kvstore.node"},
    "kvstore.gateways.http": {"kvstore.registry", "kvstore.node"},
    "kvstore.client": set(),
    "kvstore.agent": {"kvstore.client", "kvstore.checks", "kvstore.serving.values"},
    # How durations and the like are written, on command lines and in files of all kinds.
    "kvstore.serving.values": set(),
    "kvstore.serving": {
        "kvstore.node",
        "kvstore.api",
        "kvstore.gateways",
        "kvstore.checks",
        "kvstore.serving.values",
    },
    # The daemon sees storage's errors, to end with the exit code that tells what they are.
    "kvstore.daemon": {
        "kvstore.storage",
        "kvstore.node",
        "kvstore.registry",
        "kvstore.api",
        "kvstore.gateways",
        "kvstore.serving",
    },
    # Makes a member's files from a backup: a tool for the command line, no part of a member.
    "kvstore.node.restore": {"raft", "kvstore.storage", "kvstore.machine", "kvstore.node"},
    # The command line starts servers, talks to them as a client, and reads files of stopped ones.
    "kvstore.cli": {
        "kvstore.client",
        "kvstore.checks",
        "kvstore.agent",
        "kvstore.serving",
        "kvstore.daemon",
        "kvstore.storage",
        "kvstore.node.restore",
    },
}
LINES_MAX = 600
FUNCTION_LINES_MAX = 100


def sources(*tops: str) -> list[Path]:
    return [
        path
        for top in tops
        for path in sorted((ROOT / top).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    ]


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def layer_of(module: str) -> str | None:
    names = [name for name in LAYERS if module == name or module.startswith(name + ".")]
    return max(names, key=len, default=None)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            for alias in node.names:
                candidate = f"{node.module}.{alias.name}"
                target = ROOT / Path(*candidate.split("."))
                is_module = target.is_dir() or target.with_suffix(".py").exists()
                yield node.lineno, candidate if is_module else node.module


def allowed(importer: str, imported: str) -> bool:
    own, other = layer_of(importer), layer_of(imported)
    if imported in BOTTOM or other in BOTTOM:
        return own != "raft"
    if own is None or other is None or own == other:
        return own == other
    return any(other == name or other.startswith(name + ".") for name in LAYERS[own])


def test_imports_point_down_only() -> None:
    wrong = []
    for path in sources("raft", "kvstore"):
        importer = module_name(path)
        for line, imported in imports_of(path):
            if imported.split(".")[0] in ("raft", "kvstore") and not allowed(importer, imported):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {importer} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_the_walk_would_notice() -> None:
    assert not allowed("raft.core", "kvstore.errors")
    assert not allowed("kvstore.storage.wal", "kvstore.machine.machine")
    assert not allowed("kvstore.api.services.kv", "kvstore.machine.machine")
    assert not allowed("kvstore.client.kv", "kvstore.node.node")
    assert not allowed("kvstore.cli.main", "kvstore.node.node")
    assert allowed("kvstore.node.node", "raft.node")


@pytest.mark.parametrize("path", sources("raft", "kvstore"), ids=lambda p: module_name(p))
def test_module_opens_with_its_job(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring, f"{path.relative_to(ROOT)} has no docstring"
    lines = path.read_text().count("\n")
    assert lines <= LINES_MAX, f"{path.relative_to(ROOT)} has {lines} lines: is it one idea?"


@pytest.mark.parametrize("path", sources("raft", "kvstore"), ids=lambda p: module_name(p))
def test_public_names_are_true(path: Path) -> None:
    """Every name in `__all__` exists; every public class and function of a module is in it.

    Not so what is put into a group of commands (`@endpoint.command()`): that is found by the
    group, under the name that is typed, and nobody imports it.
    """
    tree = ast.parse(path.read_text())
    exported: set[str] | None = None
    defined: set[str] = set()
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    bound.add(target.id)
                    if target.id == "__all__" and isinstance(node.value, ast.Tuple | ast.List):
                        exported = {
                            e.value
                            for e in node.value.elts
                            if isinstance(e, ast.Constant) and isinstance(e.value, str)
                        }
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(a.asname or a.name.split(".")[0] for a in node.names)
    if exported is None:
        public = {n for n in defined if not n.startswith("_")}
        assert not public or path.parent.name == "pb", f"{path}: no __all__, but {sorted(public)}"
        return
    lazy = "__getattr__" in defined
    assert lazy or exported <= defined | bound, sorted(exported - defined - bound)
    commands = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for call in node.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr == "command" and ast.unparse(call.func.value) in defined
    }
    missing = {n for n in defined if not n.startswith("_")} - exported - commands
    assert not missing, f"{path.relative_to(ROOT)}: public but not in __all__: {sorted(missing)}"


@pytest.mark.parametrize("path", sources("raft", "kvstore"), ids=lambda p: module_name(p))
def test_functions_fit_on_a_screen(path: Path) -> None:
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long, f"{path.relative_to(ROOT)}: {long}"


PURE = ("raft", "kvstore/machine", "kvstore/watch")
PURE_MODULES = tuple(
    ROOT / "kvstore/registry" / f"{name}.py"
    for name in ("limits", "names", "times", "model", "lifecycle", "liveness", "guard")
) + tuple(ROOT / "kvstore/checks" / f"{name}.py" for name in ("limits", "spec", "tally"))
PURE_MODULES += tuple(
    ROOT / "kvstore/gateways/dns" / f"{name}.py"
    for name in ("answers", "cache", "limits", "records", "settings", "wire")
)
IMPURE_IMPORTS = {"time", "random", "secrets", "uuid", "asyncio", "threading", "socket", "datetime"}


def test_pure_packages_own_no_clock_no_chance_no_loop() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in (*sources(*PURE), *PURE_MODULES)
        for line, name in imports_of(path)
        if name.split(".")[0] in IMPURE_IMPORTS
    ]
    assert not wrong, "\n".join(wrong)


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()]


def test_no_leftovers() -> None:
    leftovers = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|breakpoint\(\))")
    wrong = []
    for path in tracked():
        if path.suffix == ".py" and "pb" not in path.parts and path.name != "test_tidy.py":
            for number, line in enumerate(path.read_text().split("\n"), 1):
                if leftovers.search(line):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)
