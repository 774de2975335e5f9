"""The directories of the virtual disk: names as processes see them, and those that are durable.

Creating, renaming and removing change what processes see at once; after a power loss they count
only if the directory was synced since, or if the crash happens to keep them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.sim.medium import CrashPolicy, Inode, kept_of
from tests.sim.prng import Prng

__all__ = ("Names",)

Node = Inode | None
"""A file; None is a directory."""
Tree = dict[str, dict[str, Node]]
_ROOTS = ("/", ".")


class _Change(NamedTuple):
    kind: str
    directory: str
    name: str
    target: str = ""
    inode: Node = None


class Names:
    """The tree of one disk."""

    def __init__(self) -> None:
        self._seen: Tree = {root: {} for root in _ROOTS}
        self._durable: Tree = {root: {} for root in _ROOTS}
        self._pending: list[_Change] = []

    def copy(self, twin_of: Callable[[Inode], Inode]) -> Names:
        """The same tree over the files of a copied disk."""

        def twin(tree: Tree) -> Tree:
            return {
                directory: {
                    name: None if node is None else twin_of(node) for name, node in names.items()
                }
                for directory, names in tree.items()
            }

        names = Names()
        names._seen, names._durable = twin(self._seen), twin(self._durable)
        names._pending = [
            change if change.inode is None else change._replace(inode=twin_of(change.inode))
            for change in self._pending
        ]
        return names

    def find(self, path: Path, *, durable: bool = False) -> Inode | None:
        """The file of this name, if there is one."""
        tree = self._durable if durable else self._seen
        return tree.get(str(path.parent), {}).get(path.name)

    def exists(self, path: Path, *, durable: bool = False) -> bool:
        """Whether a file or a directory has this name."""
        tree = self._durable if durable else self._seen
        return str(path) in tree or path.name in tree.get(str(path.parent), {})

    def list(self, directory: Path, *, durable: bool = False) -> list[str]:
        """The names in a directory, sorted."""
        tree = self._durable if durable else self._seen
        return sorted(tree.get(str(directory), {}))

    def files(self) -> Iterator[Inode]:
        """Every file that has a name for processes, once."""
        seen: dict[int, Inode] = {}
        for names in self._seen.values():
            for node in names.values():
                if node is not None:
                    seen[node.number] = node
        return iter(seen.values())

    def paths(self) -> Iterator[tuple[str, Inode]]:
        """Every (path, file) that processes see, in the order of the paths."""
        for directory in sorted(self._seen):
            for name in sorted(self._seen[directory]):
                node = self._seen[directory][name]
                if node is not None:
                    yield f"{directory.rstrip('/')}/{name}", node

    def pending(self) -> list[str]:
        """What is not durable yet, in words (for comparing disks)."""
        return [
            f"{change.kind} {change.directory}/{change.name} {change.target} "
            f"{change.inode.number if change.inode else 0}"
            for change in self._pending
        ]

    def link(self, path: Path, node: Node) -> None:
        """A new file, or with None a new directory."""
        assert str(path.parent) in self._seen, f"there is no directory {path.parent}"
        self._change(_Change("link", str(path.parent), path.name, inode=node))

    def rename(self, source: Path, target: Path) -> None:
        """Moves a file within its directory."""
        assert source.parent == target.parent, "only within a directory"
        self._change(_Change("rename", str(source.parent), source.name, target.name))

    def unlink(self, path: Path) -> None:
        """Takes a file's name away."""
        self._change(_Change("unlink", str(path.parent), path.name))

    def sync(self, directory: Path) -> None:
        """Makes the names in one directory durable."""
        wanted = str(directory)
        left = []
        for change in self._pending:
            if change.directory == wanted:
                _apply(self._durable, change)
            else:
                left.append(change)
        self._pending = left

    def power_loss(self, policy: CrashPolicy, prng: Prng, fired: Counter[str]) -> None:
        """Leaves the durable names and those of the others that the policy keeps."""
        if self._pending:
            kept = kept_of(self._pending, policy, prng)
            fired["name change lost"] += len(self._pending) - len(kept)
            for change in kept:
                _apply(self._durable, change)
            self._pending = []
        reached = list(_ROOTS)
        for directory in reached:
            names = self._durable[directory]
            reached += [_below(directory, name) for name, node in names.items() if node is None]
        self._durable = {directory: self._durable[directory] for directory in reached}
        self._seen = {directory: names.copy() for directory, names in self._durable.items()}

    def _change(self, change: _Change) -> None:
        _apply(self._seen, change)
        self._pending.append(change)


def _apply(tree: Tree, change: _Change) -> None:
    names = tree.setdefault(change.directory, {})
    if change.kind == "link":
        names[change.name] = change.inode
        if change.inode is None:
            tree.setdefault(_below(change.directory, change.name), {})
    elif change.kind == "unlink":
        names.pop(change.name, None)
    elif change.name in names:
        names[change.target] = names.pop(change.name)


def _below(directory: str, name: str) -> str:
    return str(Path(directory) / name)
