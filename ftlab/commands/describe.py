"""`ftlab describe NAME`: what one plugin is, what it takes and how it is written. Imports neither torch nor any plugin.

Of a run's folder: what the run did to the weights.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

from ftlab import catalogue, registry
from ftlab.catalogue import Entry
from ftlab.commands.arguments import parser
from ftlab.errors import ConfigError, suggest
from ftlab.given import SLOTS
from ftlab.source import Parameter

_KINDS = {"strategies": "strategy", "tasks": "task", "data": "data source"}
_TASK_FACTS = ("heads", "auto_class")
_SHOWN = 2
"""Fields in the example of a class that needs none."""


def run(name: str, arguments: list[str]) -> int:
    """Print what is known about the plugins of a name."""
    made = parser(name, "Show the fields, types, defaults and paper of a plugin, or the spectrum of what a run changed.")
    made.add_argument("name", metavar="NAME", help="its class name, as `ftlab list` shows it, its class path, or the folder of a run")
    chosen = made.parse_args(arguments)
    if (Path(chosen.name) / "config.yaml").is_file():
        from ftlab.commands.spectrum import describe  # imports torch

        return describe(Path(chosen.name), chosen.plugin, chosen.format)
    for target in chosen.plugin:
        registry.use(target)
    found = catalogue.entries()
    matches = [e for e in found if chosen.name in (e.plugin.name, e.plugin.class_path)]
    if not matches:
        raise ConfigError(f"nothing is called {chosen.name!a}; {suggest(chosen.name, [e.plugin.name for e in found])}")
    records = [_record(e) for e in matches]
    if chosen.format == "json":
        print(json.dumps(records[0] if len(records) == 1 else records, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(_page(e, r) for e, r in zip(matches, records, strict=True)))
    return 0


def _record(entry: Entry) -> dict[str, object]:
    plugin = entry.plugin
    constants = entry.source.constants if entry.source else {}
    declared = constants.get("traits")
    traits = dict(declared) if isinstance(declared, dict) else {k: constants[k] for k in _TASK_FACTS if k in constants}
    paper = traits.pop("paper", constants.get("paper", ""))
    traits = {name: value for name, value in traits.items() if name != "example" and value != {}}
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "summary": entry.summary,
        "class_path": plugin.class_path,
        "package": plugin.package,
        "version": plugin.version,
        "state": entry.state,
        "problem": entry.problem,
        "paper": paper,
        "traits": traits,
        "fields": [_field(p) for p in _parameters(entry)],
        "yaml": _yaml(entry),
        "command": _command(entry),
    }


def _parameters(entry: Entry) -> tuple[Parameter, ...]:
    return entry.source.parameters if entry.source else ()


def _field(parameter: Parameter) -> dict[str, object]:
    return {
        "name": parameter.name,
        "type": parameter.type,
        "required": parameter.default is None,
        "default": None if parameter.default is None else _literal(parameter.default),
        "description": parameter.text,
    }


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def _page(entry: Entry, record: dict[str, object]) -> str:
    plugin = entry.plugin
    package = f"{plugin.package} {plugin.version}".removesuffix(" -")
    lines = [f"{plugin.name} · {_KINDS.get(plugin.kind, plugin.kind)} · {package}", entry.summary, "", f"class   {plugin.class_path}"]
    if entry.state != "ok":
        lines.append(f"{entry.state}  {entry.problem}")
    if record["paper"]:
        lines.append(f"paper   {record['paper']}")
    traits = record["traits"]
    if isinstance(traits, dict) and traits:
        lines.append(f"traits  {', '.join(f'{k}: {json.dumps(v)}' for k, v in traits.items())}")
    lines += ["", "fields"]
    for parameter in _parameters(entry):
        default = " (must be set)" if parameter.default is None else f" = {_yaml_value(parameter)}"
        lines += [f"  {parameter.name}: {parameter.type}{default}", f"      {parameter.text}"]
    return "\n".join([*lines, "", "YAML", *(f"  {line}" for line in _yaml(entry).splitlines()), "", "command line", f"  {_command(entry)}"])


def _examples(entry: Entry) -> list[tuple[str, str]]:
    """(field, value) of an example: what must be set, else the first fields."""
    parameters = _parameters(entry)
    required = [p for p in parameters if p.default is None]
    others = [p for p in parameters if p.default not in (None, "None")]
    return [(p.name, _yaml_value(p)) for p in (required or others[:_SHOWN])]


def _yaml(entry: Entry) -> str:
    section, _, key = next((s for s, k in SLOTS.items() if k == entry.plugin.kind), "?.?").partition(".")
    arguments = ", ".join(f"{name}: {value}" for name, value in _examples(entry))
    return f"{section}:\n  {key}:\n    class_path: {entry.shortest}\n    init_args: {{{arguments}}}"


def _command(entry: Entry) -> str:
    slot = next((s for s, k in SLOTS.items() if k == entry.plugin.kind), "?")
    options = "".join(f" --{slot}.{name} {value}" for name, value in _examples(entry))
    return f"ftlab fit --config my.yaml --{slot} {entry.shortest}{options}"


def _yaml_value(parameter: Parameter) -> str:
    """A field's default as YAML, which JSON is; a word in capitals where it has none."""
    if parameter.default is None:
        return parameter.name.upper()
    value = _literal(parameter.default)
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value, ensure_ascii=False)
