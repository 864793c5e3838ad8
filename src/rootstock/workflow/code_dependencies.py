"""Find the code that a stage depends on, from its source and without importing it.

A stage is stale when a module that it imports has changed, directly or through others.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rootstock.system.files import sha256_file

SOURCE = Path(__file__).parents[2]
"""The folder that contains the package `rootstock`."""
IGNORED = ("rootstock.integrations", "rootstock.cli", "rootstock.service")
"""Packages that are ignored, together with their imports.

Integrations connect a stage to trackers and clusters: another way to spread or log the same work
must not train a model again. Commands and the service call stages or use their results.
"""


def find_code(module: str, folders: Sequence[Path] = (SOURCE,)) -> list[Path]:
    """Return the files of ``module`` and of all its imports, direct and indirect.

    Only the module's own package and `rootstock` count, as they are in ``folders``: an installed
    package has libraries next to it. Imports inside functions count; imports for type checkers do
    not. If the source calls `import_module`, strings that name a module count; if it uses
    `__file__`, strings that name a file or folder next to it count as its data.
    """
    files: set[Path] = set()
    packages = {module.partition(".")[0], "rootstock"}
    waiting, done = [module], set(IGNORED)
    while waiting:
        name = waiting.pop()
        package = name.rpartition(".")[0]
        if name in done or name.startswith(tuple(f"{part}." for part in IGNORED)):
            continue
        done.add(name)
        path = _locate(name, folders) if name.partition(".")[0] in packages else None
        if path is None:
            continue
        source = _read(path.read_text(encoding="utf-8"))
        waiting += [package, *source.imports(name if path.stem == "__init__" else package)]
        files |= {path, *source.data_files(path.parent)}
    return sorted(files)


def digest_code(module: str, source: Path = SOURCE) -> str:
    """Return a SHA-256 of the names and contents of all files in `find_code`."""
    digest = hashlib.sha256()
    for path in find_code(module, (source,)):
        digest.update(f"{path.relative_to(source).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _locate(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the source file of a module in ``folders``; None for other names."""
    if not name:
        return None
    for folder in folders:
        base = folder.joinpath(*name.split("."))
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file():
                return path
    return None


@dataclass(frozen=True)
class _Source:
    """One parsed source file."""

    nodes: Sequence[ast.AST]
    strings: frozenset[str]
    names: frozenset[str]

    def imports(self, package: str) -> Iterator[str]:
        """Yield names that may be modules; relative imports start from ``package``."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                base = importlib.util.resolve_name(base, package)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
        if "import_module" in self.names:
            yield from (text for text in self.strings if text.replace(".", "_").isidentifier())

    def data_files(self, folder: Path) -> Iterator[Path]:
        """Yield the files in ``folder`` that the source names, and those in named folders."""
        if "__file__" not in self.names:
            return
        for name in self.strings:
            if name.replace(".", "_").replace("-", "_").isidentifier():
                path = folder / name
                files = path.rglob("*") if path.is_dir() else [path]
                yield from (
                    file for file in files if file.is_file() and file.suffix not in (".py", ".pyc")
                )


@cache
def _read(text: str) -> _Source:
    nodes = list(_walk(ast.parse(text)))
    return _Source(
        nodes=[node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)],
        strings=frozenset(
            node.value
            for node in nodes
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ),
        names=frozenset(
            node.id if isinstance(node, ast.Name) else node.attr
            for node in nodes
            if isinstance(node, ast.Name | ast.Attribute)
        ),
    )


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield ``node`` and all nodes below it, without code for type checkers."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for branch in child.orelse:
                yield from _walk(branch)
        else:
            yield from _walk(child)
