"""Names, errors and settings come from runs, and must stay text in a terminal, a spreadsheet, Markdown and LaTeX; see `page` for HTML."""

from __future__ import annotations

import re
import unicodedata

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the start of a formula."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~$])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "×": r"$\times$", "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$",
}  # fmt: skip


def printable(text: str) -> str:
    """`text` on one line, with control characters, those that turn the direction of writing, and halves of pairs spelled out."""
    return "".join(_spelled(c) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def _spelled(character: str) -> str:
    return " " if character in "\n\r\t" else character.encode("unicode_escape").decode()


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet computes: a text that would be a formula gets an apostrophe before it; numbers stay."""
    if not isinstance(value, str):
        return value
    plain = printable(value)
    return f"'{plain}" if value.lstrip(" ").startswith(_FORMULA) else plain


def markdown(text: str) -> str:
    """`text` as a cell of a Markdown table shows it."""
    entities = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", entities)


def latex(text: str) -> str:
    """`text` as LaTeX shows it."""
    return "".join(_LATEX.get(character, character) for character in printable(text))
