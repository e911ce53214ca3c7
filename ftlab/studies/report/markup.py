"""HTML whose text is escaped unless it is markup already, and the numbers in it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping

from ftlab.run_folder import finite
from ftlab.studies.report.escaping import printable

Attributes = Mapping[str, "str | int | float | bool | None"]
_VOID = ("input", "meta", "link", "br")


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def tag(name: str, attributes: Attributes | None = None, *children: str) -> Markup:
    """An element.

    Args:
        name: Of the element.
        attributes: Values are escaped; True stands alone, False and None are left out.
        children: `Markup` as it is, any other text escaped.
    """
    opening = "".join(_attribute(key, value) for key, value in (attributes or {}).items())
    inner = "".join(text(child) for child in children)
    return Markup(f"<{name}{opening}>" if name in _VOID else f"<{name}{opening}>{inner}</{name}>")


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    return f" {key}" if value is True else f' {key}="{html.escape(printable(str(value)), quote=True)}"'


def text(content: str) -> Markup:
    """Escaped text; markup stays."""
    return content if isinstance(content, Markup) else Markup(html.escape(printable(content), quote=True))


def block(content: str) -> Markup:
    """Several lines as they are."""
    return tag("pre", {"tabindex": 0}, Markup("\n".join(text(line) for line in content.splitlines())))


def joined(*parts: str) -> Markup:
    """Pieces of a page one after the other."""
    return Markup("".join(text(part) for part in parts))


def embedded(value: object) -> Markup:
    """JSON for a script element: nothing in it can end the element or begin a comment."""
    plain = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
