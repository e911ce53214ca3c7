"""A module's names, read from its file: found through `sys.meta_path`, never imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path


class UnreadableError(Exception):
    """A module or class whose source cannot be found or read; the message says why."""


class NoSourceError(UnreadableError):
    """A module that exists and has no Python source, such as an extension in C."""


@dataclass(frozen=True)
class Scope:
    """What stands at the top of a module.

    Args:
        classes: Name → definition.
        aliases: Name → what is assigned to it.
        imported: Name → (module, its name there), the second empty for `import module`.
    """

    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


@cache
def scope(module: str) -> Scope:
    """The names of a module.

    Raises:
        UnreadableError: There is no such module, it is no Python source, or it does not parse.
    """
    path = find(module)
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} cannot be parsed: {error}") from error
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = Scope()
    for node in _statements(tree.body):
        _enter(found, node, package)
    return found


def find(module: str) -> Path:
    """The file of a module.

    Raises:
        UnreadableError: No finder of this interpreter has it.
        NoSourceError: It is not a `.py` file.
    """
    loaded = getattr(sys.modules.get(module), "__file__", None)
    origin = loaded or _origin(module)
    if origin is None:
        raise UnreadableError(f"there is no module {module}")
    if not origin.endswith(".py"):
        raise NoSourceError(f"module {module} is not Python source")
    return Path(origin)


def _origin(module: str) -> str | None:
    places: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:count]), places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    return spec.origin if spec else None


def _spec(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, places)
        except (AttributeError, KeyError):  # a finder of the old kind; a namespace package whose parent is not imported
            continue
        if spec is not None:
            return spec
    return None


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements at the top, and those under `if` and `try` there, such as `if TYPE_CHECKING:`."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])
        else:
            yield node


def _enter(found: Scope, node: ast.stmt, package: str) -> None:
    if isinstance(node, ast.ClassDef):
        found.classes[node.name] = node
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        found.aliases[node.targets[0].id] = node.value
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        found.aliases[node.target.id] = node.value
    elif isinstance(node, ast.ImportFrom):
        origin = _absolute(node, package)
        found.imported.update({a.asname or a.name: (origin, a.name) for a in node.names})
    elif isinstance(node, ast.Import):
        for name in node.names:
            first = name.name.partition(".")[0]
            found.imported[name.asname or first] = (name.name if name.asname else first, "")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
