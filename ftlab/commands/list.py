"""`ftlab list`: what a configuration may name. Imports neither torch nor any plugin."""

from __future__ import annotations

import json

from ftlab import catalogue, registry, source
from ftlab.catalogue import Entry
from ftlab.commands.arguments import parser
from ftlab.errors import ConfigError, suggest
from ftlab.keys import CLASS_KEYS
from ftlab.preflight import ALLOWED, DENIED
from ftlab.scope import UnreadableError

CLASSES = "classes"
"""What is listed beside the kinds of plugins: other people's classes that have short names."""


def run(name: str, arguments: list[str]) -> int:
    """Print the catalogue."""
    kinds = [*registry.KINDS, CLASSES]
    made = parser(name, "Show the strategies, tasks and data sources that a configuration may name, and other people's classes.")
    made.add_argument("kind", nargs="?", metavar="KIND", help=f"only one of: {', '.join(kinds)}")
    chosen = made.parse_args(arguments)
    if chosen.kind not in (None, *kinds):
        raise ConfigError(f"`ftlab {name}` has no kind '{chosen.kind}'; {suggest(chosen.kind, kinds)}")
    for target in chosen.plugin:
        registry.use(target)
    if chosen.kind == CLASSES:
        print(json.dumps(_classes(), indent=2) if chosen.format == "json" else _class_table())
        return 0
    found = catalogue.entries(chosen.kind)
    print(json.dumps([_record(e) for e in found], indent=2, ensure_ascii=False) if chosen.format == "json" else _table(found))
    return 0


def _record(entry: Entry) -> dict[str, str]:
    plugin = entry.plugin
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "summary": entry.summary,
        "class_path": plugin.class_path,
        "package": plugin.package,
        "version": plugin.version,
        "state": entry.state,
        "problem": entry.problem,
    }


def _table(found: list[Entry]) -> str:
    lines: list[str] = []
    widths = [max((len(cell(e)) for e in found), default=0) for cell in (_name, _package, _class_path)]
    for kind in dict.fromkeys(e.plugin.kind for e in found):
        lines.append(kind)
        for entry in (e for e in found if e.plugin.kind == kind):
            cells = zip((_name(entry), _package(entry), _class_path(entry)), widths, strict=True)
            text = entry.summary if entry.state == "ok" else f"{entry.state}: {entry.problem}"
            lines.append(f"  {'  '.join(cell.ljust(width) for cell, width in cells)}  {text}")
        lines.append("")
    lines.append("`ftlab describe NAME` shows fields and defaults; `ftlab list classes` shows optimisers, callbacks and loggers.")
    return "\n".join(lines)


def _name(entry: Entry) -> str:
    return entry.plugin.name


def _package(entry: Entry) -> str:
    return f"{entry.plugin.package} {entry.plugin.version}".removesuffix(" -")


def _class_path(entry: Entry) -> str:
    return entry.plugin.class_path


def _classes() -> list[dict[str, str]]:
    """The classes that a key takes by their short names."""
    denied = {path.rpartition(".")[2] for path in DENIED}
    found = []
    for key, package in CLASS_KEYS.items():
        try:
            names = source.exports(package) if package else ()
        except UnreadableError:
            names = ()
        found += [{"key": key, "name": n, "class_path": f"{package}.{n}"} for n in names if n not in denied]
    return found


def _class_table() -> str:
    found = _classes()
    lines = [f"{key}: {', '.join(c['name'] for c in found if c['key'] == key)}\n" for key in dict.fromkeys(c["key"] for c in found)]
    return "\n".join([*lines, f"Beside these and plugins a configuration may name classes, by full path, under: {', '.join(ALLOWED)}."])
