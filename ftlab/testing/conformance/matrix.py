"""What works where, measured: strategy × check, and strategy × backbone family × task × mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftlab.errors import ConfigError
from ftlab.tasks.base import Task
from ftlab.testing.conformance.backbones import in_four_bits, merged_there, works
from ftlab.testing.conformance.check import CHECKS
from ftlab.testing.conformance.learning import learns
from ftlab.testing.conformance.subject import CLASSES, LANGUAGE, Subject
from ftlab.testing.conformance.suite import Suite, apart
from ftlab.testing.models import DECODERS, FAMILIES

_MARKS = {"passed": "yes", "failed": "**no**", "not applicable": "–", "not run": "?"}


def _merged(subject: Subject, family: str, task: Task) -> None:
    if not subject.merges:
        raise ConfigError("there is no merged form")
    merged_there(subject, family, task)


def _quantised(subject: Subject, family: str, task: Task) -> None:
    with in_four_bits(subject):
        learns(subject, family, task=task)


MODES: dict[str, tuple[str, Callable[[Subject, str, Task], None]]] = {
    "T": ("trains: every trainable tensor learns, and nothing else moves", works),
    "R": ("with activations recomputed", lambda s, f, t: learns(s, f, task=t, activation_checkpointing=True)),
    "B": ("on a base in bfloat16", lambda s, f, t: learns(s, f, task=t, dtype="bfloat16")),
    "M": ("merged, the model is the same", _merged),
    "Q": ("on a base in 4 bits", _quantised),
}


def page(suites: Sequence[Suite]) -> str:
    """The tables as Markdown."""
    names = [type(s.subject.strategy).__name__ for s in suites]
    head = "# What works where\n\nMade by `ftlab check --all --matrix docs/reference/matrix.md`; every entry was run on tiny models.\n"
    parts = [head, "## Checks\n", _checks(names, suites)]
    for task, families in ((LANGUAGE, DECODERS), (CLASSES, FAMILIES)):
        rows = [[family, *(_cell(s, family, task) for s in suites)] for family in families]
        parts += [f"## {type(task).__name__}\n", _grid(["family", *names], rows)]
    legend = "\n".join(f"* **{letter}** {text}" for letter, (text, _) in MODES.items())
    parts.append(f"## Legend\n\n{legend}\n* **refused** by the strategy, with the reason\n")
    return "\n".join(parts)


def _checks(names: Sequence[str], suites: Sequence[Suite]) -> str:
    reasons: list[str] = []

    def mark(suite: Suite, check: str) -> str:
        verdict = suite.verdict(check)
        if verdict.state in ("declared", "failed"):
            reasons.append(f"{type(suite.subject.strategy).__name__}, {check}: {' '.join(verdict.reason.split())}")
        return f"no ({len(reasons)})" if verdict.state == "declared" else _MARKS[verdict.state]

    rows = [[check, *(mark(suite, check) for suite in suites)] for check in CHECKS]
    listed = "\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
    about = "\n".join(f"* **{name}** {check.about}" for name, check in CHECKS.items())
    return "\n".join([_grid(["check", *names], rows), listed, "", about, ""])


def _cell(suite: Suite, family: str, task: Task) -> str:
    """Letters of the modes that work; refused where the strategy refuses the first of them."""
    found = ""
    for letter, (_, measure) in MODES.items():
        try:
            with apart(type(suite.subject.strategy)):
                measure(suite.subject, family, task)
        except ConfigError:
            if letter == "T":
                return "refused"
        except Exception:  # whatever a strategy raises, it does not work there
            found += "" if letter != "T" else "**no** "
        else:
            found += letter
    return found or "**no**"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
