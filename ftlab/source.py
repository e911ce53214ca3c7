"""What a class says about itself, read from its source text: nothing is imported, not even the package around it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from ftlab import type_words
from ftlab.scope import UnreadableError, scope

_DEEPEST_ALIAS = 10
"""Aliases within aliases; a longer chain is a circle."""
_ENTRY = re.compile(r" {4}\*{0,2}(\w+)(?: \([^)]*\))?: *(.*)")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One argument of a class.

    Args:
        name: Its name.
        annotation: Its type, aliases written out.
        default: Its default as source text; None where it must be given.
        text: Its line of the docstring.
        nested: Class path where the type is a class whose source can be read.
    """

    name: str
    annotation: ast.expr | None
    default: str | None
    text: str = ""
    nested: str | None = None

    @property
    def type(self) -> str:
        """The type as a person would write it."""
        return ast.unparse(self.annotation) if self.annotation is not None else ""

    @property
    def nullable(self) -> bool:
        """Whether null is one of its values."""
        return self.annotation is None or type_words.nullable(self.annotation)


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """A class as its source describes it.

    Args:
        path: Its class path, where it is defined.
        summary: First sentence of its docstring.
        parameters: What its constructor takes.
        constants: Values that it or a base assigns in its body.
    """

    path: str
    summary: str
    parameters: tuple[Parameter, ...]
    constants: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Class:
    module: str
    node: ast.ClassDef

    @property
    def path(self) -> str:
        return f"{self.module}.{self.node.name}"


@cache
def read(class_path: str) -> ClassSource:
    """What the source of a class says.

    Raises:
        UnreadableError: There is no such module, class or source.
    """
    module, _, name = class_path.rpartition(".")
    found = _find_class(module, name)
    if found is None:
        raise UnreadableError(f"module {module} has no class {name}")
    lineage = list(_lineage(found))
    constants: dict[str, object] = {}
    parameters: dict[str, Parameter] = {}
    for cls in reversed(lineage):
        constants.update(_constants(cls))
        own = _initializer(cls)
        if own is not None:
            parameters = {p.name: p for p in own}
        else:
            parameters.update({p.name: p for p in _fields(cls)})
    summary = (ast.get_docstring(found.node) or "").strip().partition("\n\n")[0]
    return ClassSource(path=found.path, summary=" ".join(summary.split()), parameters=tuple(parameters.values()), constants=constants)


def arguments(class_path: str, method: str) -> tuple[str, ...]:
    """The names of a method's arguments, without `self`.

    Raises:
        UnreadableError: There is no such class or method.
    """
    module, _, name = class_path.rpartition(".")
    found = _find_class(module, name)
    node = None if found is None else next((n for n in found.node.body if isinstance(n, ast.FunctionDef) and n.name == method), None)
    if node is None:
        raise UnreadableError(f"{class_path} has no method {method}")
    return tuple(a.arg for a in (*node.args.args[1:], *node.args.kwonlyargs))


@cache
def exports(module: str) -> tuple[str, ...]:
    """The classes that a package offers under its own name: the capitalised names that its `__init__` imports."""
    names = [name for name in scope(module).imported if name[:1].isupper()]
    return tuple(sorted(names))


def _find_class(module: str, name: str, depth: int = 0) -> _Class | None:
    names = scope(module)
    if name in names.classes:
        return _Class(module, names.classes[name])
    if name in names.imported and depth < _DEEPEST_ALIAS:
        origin, original = names.imported[name]
        if original and not _standard(origin):
            return _find_class(origin, original, depth + 1)
    return None


def _lineage(cls: _Class, depth: int = 0) -> Iterator[_Class]:
    """The class and its bases, nearest first, as far as they can be read."""
    yield cls
    for base in cls.node.bases:
        try:
            found = _named(cls.module, base)
        except UnreadableError:
            continue
        if found is not None and depth < _DEEPEST_ALIAS:
            yield from _lineage(found, depth + 1)


def _named(module: str, expression: ast.expr) -> _Class | None:
    """The class that an expression in a module names: `Name`, `module.Name` or `Name[...]`."""
    if isinstance(expression, ast.Subscript):
        return _named(module, expression.value)
    if isinstance(expression, ast.Name):
        return _find_class(module, expression.id)
    if isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        origin, original = scope(module).imported.get(expression.value.id, ("", ""))
        place = f"{origin}.{original}".strip(".")
        return _find_class(place, expression.attr) if place and not _standard(place) else None
    return None


def _fields(cls: _Class) -> Iterator[Parameter]:
    """The fields that a dataclass adds to those of its bases."""
    texts = _argument_texts(cls.node)
    for node in cls.node.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        kind = node.annotation.value if isinstance(node.annotation, ast.Subscript) else node.annotation
        options = _field_options(node.value)
        if ast.unparse(kind).rpartition(".")[2] not in ("ClassVar", "KW_ONLY") and options.get("init") != "False":
            yield _parameter(cls.module, node.target.id, node.annotation, options.get("default", options.get("default_factory")), texts)


def _field_options(value: ast.expr | None) -> dict[str, str]:
    """What `dataclasses.field(...)` is called with, a plain value as its default; the factories `list` and `dict` read `[]` and `{}`."""
    if value is None:
        return {}
    if not (isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "field"):
        return {"default": ast.unparse(value)}
    empty = {"list": "[]", "dict": "{}"}
    found = {k.arg: ast.unparse(k.value) for k in value.keywords if k.arg}
    if "default_factory" in found:
        found["default_factory"] = empty.get(found["default_factory"], f"{found['default_factory']}()")
    return found


def _initializer(cls: _Class) -> list[Parameter] | None:
    node = next((n for n in cls.node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if node is None:
        return None
    texts = {**_argument_texts(cls.node), **_argument_texts(node)}
    plain = [*node.args.posonlyargs, *node.args.args][1:]
    required: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
    pairs = [*zip(plain, [*required, *node.args.defaults], strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    return [_parameter(cls.module, a.arg, a.annotation, None if d is None else ast.unparse(d), texts) for a, d in pairs]


def _parameter(module: str, name: str, annotation: ast.expr | None, default: str | None, texts: Mapping[str, str]) -> Parameter:
    full = None if annotation is None else _Aliases(module).visit(_unquoted(annotation))
    cls = None if full is None else _class_in(module, full)
    return Parameter(name=name, annotation=full, default=default, text=texts.get(name, ""), nested=cls.path if cls else None)


def _class_in(module: str, annotation: ast.expr) -> _Class | None:
    try:
        return _named(module, annotation) if isinstance(annotation, ast.Name | ast.Attribute) else None
    except UnreadableError:
        return None


def _unquoted(annotation: ast.expr) -> ast.expr:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return ast.parse(ast.unparse(annotation), mode="eval").body  # a copy, for the transformer changes it


class _Aliases(ast.NodeTransformer):
    """Writes out the names of types that a module gives: `Part: TypeAlias = Literal["a", "b"]`."""

    def __init__(self, module: str, depth: int = 0) -> None:
        self.module = module
        self.depth = depth

    def visit_Name(self, node: ast.Name) -> ast.expr:
        found = _alias(self.module, node.id) if self.depth < _DEEPEST_ALIAS else None
        if found is None:
            return node
        module, value = found
        written_out: ast.expr = _Aliases(module, self.depth + 1).visit(_unquoted(value))
        return written_out


def _alias(module: str, name: str) -> tuple[str, ast.expr] | None:
    """What a name at the top of a module is assigned, and the module that does it, through any imports."""
    try:
        for _ in range(_DEEPEST_ALIAS):
            names = scope(module)
            if name in names.aliases:
                return module, names.aliases[name]
            if name not in names.imported or _standard(names.imported[name][0]):
                return None
            module, name = names.imported[name]
    except UnreadableError:
        return None
    return None


def _constants(cls: _Class) -> Iterator[tuple[str, object]]:
    """Plain values that a class body assigns; a call such as `Traits(...)` is a dict of the called class's values."""
    for node in cls.node.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(target, ast.Name) and value is not None:
            with suppress(ValueError):
                yield target.id, _evaluated(cls.module, value)


def _evaluated(module: str, value: ast.expr) -> object:
    if not isinstance(value, ast.Call):
        return ast.literal_eval(value)
    called = _named(module, value.func)
    if called is None:
        raise ValueError(ast.unparse(value))
    defaults = {p.name: ast.literal_eval(p.default) for p in _fields(called) if p.default is not None}
    return {**defaults, **{k.arg: ast.literal_eval(k.value) for k in value.keywords if k.arg}}


def _argument_texts(node: ast.ClassDef | ast.FunctionDef) -> dict[str, str]:
    """Name → text of the `Args:` section of a docstring in Google's style."""
    _, found, rest = (ast.get_docstring(node) or "").partition("\nArgs:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in rest.splitlines() if found else ():
        entry = _ENTRY.fullmatch(line)
        if line and not line.startswith(" "):
            break  # the next section
        if entry:
            name, texts[entry[1]] = entry[1], entry[2]
        elif name and line.strip():
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names
