"""`ftlab check`: the conformance suite of a strategy, task or data source, as pytest runs it, without pytest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import registry, strict_yaml
from ftlab.commands.arguments import Arguments
from ftlab.errors import ConfigError, FtlabError, suggest

if TYPE_CHECKING:
    from ftlab.rows import Row
    from ftlab.testing.conformance.suite import Suite, Verdict

_FAILED = 2
_WORDS = {"strategies": "strategy", "tasks": "task", "data": "source"}
"""Kind in the registry → what JSON calls one of them."""


def run(name: str, arguments: list[str]) -> int:
    """Check one plugin or all, and print a table; the exit code is 0 where every check passes or fails as declared, else 2."""
    parser = _parser(name)
    chosen, rest = parser.parse_known_args(arguments)
    if bool(chosen.target) == chosen.all:
        raise ConfigError(f"`ftlab {name}` needs a plugin or --all, not both; write `ftlab {name} LoRA` or `ftlab {name} --all`.")
    fields = _fields(rest)
    for target in chosen.plugin:
        registry.use(target)
    from ftlab.testing.conformance.suite import working_folder  # imports torch, which no error above has waited for

    _check_names(chosen.only)
    rows = _rows(chosen.rows) if chosen.rows else []
    with working_folder() as root:
        plugins = registry.plugins() if chosen.all else []
        wanted = [(p.class_path, root / p.kind / p.name) for p in plugins] or [(chosen.target, root)]
        checked = [_checked(target, fields, rows, chosen, place) for target, place in wanted]
        failed = [f"{p.name}: {p.fault}" for p in registry.faulty()] if chosen.all else []
        for line in failed:
            print(line)
        if chosen.matrix:
            from ftlab.testing.conformance.matrix import page

            Path(chosen.matrix).write_text(page([suite for suite, _ in checked if suite is not None]), encoding="utf-8")
            print(f"wrote {chosen.matrix}")
    return _FAILED if failed or not all(well for _, well in checked) else 0


def _parser(name: str) -> Arguments:
    made = Arguments(
        prog=f"ftlab {name}", description="Measure whether a plugin keeps its contract, on tiny models.", allow_abbrev=False,
        epilog="Fields of the class are given by their names, such as --r 4.",
    )  # fmt: skip
    made.add_argument("target", nargs="?", metavar="PLUGIN", help="a name in `ftlab list`, package.module:Class or file.py:Class")
    made.add_argument("--all", action="store_true", help="every strategy, task and data source that is installed")
    made.add_argument("--only", action="append", default=[], metavar="CHECK", help="only this check, and those that it needs")
    made.add_argument("--family", metavar="TYPE", help="model type of the tiny models, such as bert (default: the first that fits)")
    made.add_argument("--rows", metavar="FILE.jsonl", help="rows to check a task on (default: those that its class declares)")
    made.add_argument("--matrix", metavar="FILE.md", help="also measure strategies on every family, task and mode; write tables")
    made.add_argument("--format", choices=("table", "json"), default="table", help="for people or for programs (default: table)")
    made.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="import this first")
    return made


def _fields(words: Sequence[str]) -> dict[str, Any]:
    """`--name value` and `--name=value`, as values of YAML."""
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        option, equals, text = rest.pop(0).partition("=")
        if not option.startswith("--") or not (equals or rest):
            raise ConfigError(f"'{option}' is no option with a value; write --field value for a field of the class.")
        found[option.removeprefix("--").replace("-", "_")] = strict_yaml.value(text if equals else rest.pop(0), option)
    return found


def _check_names(names: Sequence[str]) -> None:
    from ftlab.testing.conformance import OF_KIND

    known = dict.fromkeys(name for checks in OF_KIND.values() for name in checks)  # some are checks of several kinds
    for name in names:
        if name not in known:
            raise ConfigError(f"--only {name} is no check; {suggest(name, known)}")


def _rows(path: str) -> list[Row]:
    from ftlab.data.sources.json_lines import JsonLines

    return list(JsonLines(path=path).rows("train"))


def _checked(target: str, fields: dict[str, Any], rows: list[Row], chosen: Any, root: Path) -> tuple[Suite[Any] | None, bool]:
    """Check one plugin and print what came out; its suite, and whether all is well."""
    from ftlab.testing.conformance.making import find
    from ftlab.testing.conformance.opening import Wanted, opened
    from ftlab.testing.conformance.suite import Suite

    root.mkdir(exist_ok=True, parents=True)
    try:
        kind, cls = find(target)
        suite = Suite(opened(kind, cls, Wanted(root=root, fields=fields, family=chosen.family, rows=rows)))
    except FtlabError as error:
        if not chosen.all:
            raise
        print(f"{target.rpartition('.')[2]}: cannot be checked: {error}\n")
        return None, False
    known = suite.subject.checks
    for name in chosen.only or known:
        if name in known:
            suite.verdict(name)
        elif not chosen.all:
            raise ConfigError(f"--only {name} is no check of {kind}; {suggest(name, known)}")
    verdicts = [suite.verdicts[name] for name in known if name in suite.verdicts]
    if chosen.format == "json":
        print(json.dumps(_record(kind, target, suite, verdicts), indent=2))
    elif verdicts:
        print(_table(cls.__name__, suite, verdicts))
    return suite, all(v.state != "failed" for v in verdicts)


def _record(kind: str, target: str, suite: Suite[Any], verdicts: Sequence[Verdict]) -> dict[str, object]:
    return {_WORDS[kind]: target, "family": suite.subject.measured_on(), "checks": [asdict(v) for v in verdicts]}


def _table(name: str, suite: Suite[Any], verdicts: Sequence[Verdict]) -> str:
    family = suite.subject.measured_on()
    lines = [f"{name} on tiny {family} models" if family else name]
    wide = max(len(v.check) for v in verdicts)
    lines += [f"  {v.check:<{wide}}  {v.state:<14}  {v.reason}".rstrip() for v in verdicts]
    counts = {state: sum(v.state == state for v in verdicts) for state in dict.fromkeys(v.state for v in verdicts)}
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return "\n".join([*lines, f"  {told}; {sum(v.seconds for v in verdicts):.0f} s of CPU", ""])
