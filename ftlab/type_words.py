"""Types in words, from their source text."""

from __future__ import annotations

import ast
from collections.abc import Iterator

_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "None": "null"}

_MANY = {"int": "whole numbers", "float": "numbers", "str": "texts"}


def alternatives(annotation: ast.expr) -> Iterator[ast.expr]:
    """The members of a union: `A | B`, `Union[A, B]`, `Optional[A]`; a type that is none is its own."""
    name = _outer(annotation)
    if isinstance(annotation, ast.BinOp):
        yield from alternatives(annotation.left)
        yield from alternatives(annotation.right)
    elif isinstance(annotation, ast.Subscript) and name in ("Union", "Optional"):
        for member in _inner(annotation):
            yield from alternatives(member)
        if name == "Optional":
            yield ast.Constant(None)
    else:
        yield annotation


def nullable(annotation: ast.expr) -> bool:
    """Whether None is a value of the type."""
    return any(isinstance(part, ast.Constant) and part.value is None for part in alternatives(annotation))


def wanted(annotation: ast.expr) -> str:
    """What a user must write, such as `a whole number or null`."""
    return " or ".join(dict.fromkeys(_word(part) for part in alternatives(annotation)))


def _word(annotation: ast.expr) -> str:
    text = ast.unparse(annotation)
    name = _outer(annotation)
    if not isinstance(annotation, ast.Subscript):
        return _WORDS.get(text, text)
    members = _inner(annotation)
    if name == "Literal":
        return f"one of {', '.join(str(m.value) if isinstance(m, ast.Constant) else ast.unparse(m) for m in members)}"
    if name in ("list", "List", "Sequence", "Iterable"):
        return f"a list of {_MANY[entry]}" if (entry := ast.unparse(members[0])) in _MANY else "a list"
    if name in ("dict", "Dict", "Mapping"):
        return f"key: value pairs, the values {_MANY[entry]}" if (entry := ast.unparse(members[-1])) in _MANY else "key: value pairs"
    return text


def _outer(annotation: ast.expr) -> str:
    return ast.unparse(annotation.value).rpartition(".")[2] if isinstance(annotation, ast.Subscript) else ""


def _inner(annotation: ast.Subscript) -> list[ast.expr]:
    return annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
