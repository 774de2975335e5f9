"""What the documents name exists: files, modules, functions, flags, metrics, commands, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from kvstore.faults import CHOICES, POINTS

ROOT = Path(__file__).resolve().parents[2]
ALL_DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
DOCUMENTS = [path for path in ALL_DOCUMENTS if path.name not in ("flags.md", "client.md", "cli.md")]
"""Those whose every name is checked; the others have tests of their own."""

FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"^[\w./-]+\.(?:py|md|toml|yml|lock|txt|sh|proto)$")
DOTTED = re.compile(r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$")
CLASS = re.compile(r"^[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+$")
METRIC = re.compile(r"^(?:etcd|kvstore|process|os)_[a-z_]+$")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")

FOREIGN = {"grpc", "mvccpb", "asyncio", "docker"}
"""First parts of dotted names that are other people's."""
FOREIGN_NAMES = {
    "store.mdb",
    "store.mark",
    "default.etcd",
    "backup.db",
    "prometheus_client",
    "kv.local",
}
FAULT_NAMES = {*POINTS, *CHOICES}
FOREIGN_CLASSES = {"NamedTuple", "LeaseKeepAlive"}
FOREIGN_FLAGS = {"--build", "--dns", "--dns-search", "--profile"}
LIBRARY_METRICS = {"process_resident_memory_bytes"}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def spans(path: Path) -> list[str]:
    """What stands in single backticks outside fenced blocks, with calls' parentheses cut off."""
    return [span.removesuffix("()") for span in SPAN.findall(FENCE.sub("", text_of(path)))]


def blocks(path: Path) -> str:
    """All fenced blocks."""
    return "\n".join(FENCE.findall(text_of(path)))


@cache
def sources() -> dict[str, ast.Module]:
    found = {}
    for top in ("raft", "kvstore", "tests", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            if not path.name.endswith("_pb2.py"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                found[name] = ast.parse(text_of(path))
    return found


@cache
def code() -> str:
    """Every source file's text, for names that are strings there."""
    return "\n".join(text_of(path) for path in (ROOT / "kvstore").rglob("*.py"))


def bound_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that plain assignments of a module or class body bind."""
    for node in body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id


def attributes_of(body: ast.ClassDef) -> Iterator[str]:
    """Methods, fields, and what `self.x = …` makes anywhere in the class."""
    yield from bound_names(body.body)
    for node in ast.walk(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@cache
def endings() -> frozenset[str]:
    """Every name of the code, and every shorter form of it that begins at a dot."""
    full: set[str] = set()
    for module, tree in sources().items():
        full.add(module)
        full.update(f"{module}.{name}" for name in bound_names(tree.body))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                full.add(f"{module}.{node.name}")
            elif isinstance(node, ast.ClassDef):
                full.add(f"{module}.{node.name}")
                full.update(f"{module}.{node.name}.{name}" for name in attributes_of(node))
    return frozenset(
        ".".join(parts[start:])
        for parts in (name.split(".") for name in full)
        for start in range(len(parts))
    )


@cache
def protocol_names() -> frozenset[str]:
    """Messages, services and methods of the gRPC definitions."""
    names: set[str] = set()
    for path in (ROOT / "protos").rglob("*.proto"):
        names.update(re.findall(r"(?:message|service|rpc|enum)\s+(\w+)", text_of(path)))
    return frozenset(names)


def problem(span: str) -> str | None:
    """Why what a document names is not there; None if it is, or if it names nothing of ours."""
    if span in FOREIGN_NAMES or span in FAULT_NAMES:
        return None
    if FILE.match(span):
        here = (ROOT / span).exists()
        return None if here else "no such file"
    if span.endswith("/") and span.split("/")[0] in ("raft", "kvstore", "tests", "docs", "protos"):
        return None if (ROOT / span).is_dir() else "no such directory"
    if METRIC.match(span) and span not in sources():
        known = f'"{span}"' in code() or span.removesuffix("_total") in code()
        return None if known or span in LIBRARY_METRICS else "no such metric"
    if DOTTED.match(span):
        return None if span in endings() or span.split(".")[0] in FOREIGN else "no such name"
    if CLASS.match(span):
        known = span in endings() or span in protocol_names() or span in FOREIGN_CLASSES
        return None if known else "no such class"
    return None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_named_code_exists(path: Path) -> None:
    wrong = [f"`{span}`: {why}" for span in spans(path) if (why := problem(span))]
    assert not wrong, f"{path.relative_to(ROOT)}:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "span",
    [
        "raft/nowhere.py",
        "kvstore/nowhere/",
        "member.MemberCore.nowhere",
        "MemberCore.nowhere",
        "proposals.nowhere",
        "MemberKernel",
        "etcd_server_nowhere_total",
    ],
)
def test_the_check_would_notice(span: str) -> None:
    assert problem(span) is not None


@pytest.mark.parametrize(
    "span",
    [
        "raft/core.py",
        "MemberCore.write",
        "proposals.propose",
        "EtcdError.outcome_known",
        "kvstore.node.member",
        "PutRequest",
        "etcd_server_has_leader",
    ],
)
def test_the_check_finds_what_is_there(span: str) -> None:
    assert problem(span) is None


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    made = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(path)), re.MULTILINE):
        plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower()
        made.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return made


@pytest.mark.parametrize("path", ALL_DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    wrong = []
    for link in LINK.findall(FENCE.sub("", text_of(path))):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong, f"{path.relative_to(ROOT)}: {wrong}"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_make_targets_exist(path: Path) -> None:
    in_text = [s.split()[1] for s in spans(path) if re.match(r"make [a-z-]+", s)]
    in_blocks = re.findall(r"^(?:\$ )?make ([a-z-]+)", blocks(path), re.MULTILINE)
    missing = {*in_text, *in_blocks} - make_targets()
    assert not missing, f"{path.relative_to(ROOT)}: {sorted(missing)}"


def test_readme_names_the_two_commands() -> None:
    readme = text_of(ROOT / "README.md")
    assert "make run" in readme
    assert "make test" in readme


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_flags_exist(path: Path) -> None:
    text = "\n".join([*spans(path), blocks(path)])
    flags = set(FLAG.findall(text)) - FOREIGN_FLAGS
    known = code() + "".join(text_of(path) for path in (ROOT / "benchmarks").rglob("*.py"))
    missing = {
        flag for flag in flags if f'"{flag}' not in known and f'"{flag.lstrip("-")}"' not in known
    }
    assert not missing, f"{path.relative_to(ROOT)}: {sorted(missing)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_exist(path: Path) -> None:
    table = text_of(ROOT / "kvstore" / "cli" / "table.py")
    text = "\n".join([*spans(path), *(blocks(path).split("\n"))])
    named = re.findall(r"^(?:\$ )?kvstore (?:--\S+ )*([a-z][a-z-]*)", text, re.MULTILINE)
    missing = {command for command in named if f'"{command}"' not in table}
    assert not missing, f"{path.relative_to(ROOT)}: {sorted(missing)}"


def test_exit_codes_are_those_of_the_server() -> None:
    from kvstore.serving.exits import EXIT_MEANINGS

    section = text_of(ROOT / "docs" / "operations.md").split("## Exit codes")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE))
    assert rows == {str(int(code)): meaning for code, meaning in EXIT_MEANINGS.items()}
