"""What works where, measured: plugin × check, strategy × backbone family × mode, and strategy × task × mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ftlab.errors import ConfigError, FtlabError
from ftlab.tasks.base import Task
from ftlab.testing.conformance.backbones import in_four_bits, merged_there, works
from ftlab.testing.conformance.check import BrokenError
from ftlab.testing.conformance.learning import learns
from ftlab.testing.conformance.sources.subject import SourceSubject
from ftlab.testing.conformance.subject import CLASSES, LANGUAGE, RECOMPUTING, Build, Subject
from ftlab.testing.conformance.suite import Suite, apart
from ftlab.testing.conformance.tasks.subject import TaskSubject
from ftlab.testing.conformance.tasks.training import heads
from ftlab.testing.models import DECODERS, FAMILIES

_MARKS = {"passed": "yes", "failed": "**no**", "not applicable": "–", "not run": "?"}
BOTH_KINDS = (("bert", "distilbert"), ("llama",))
"""Encoders and decoders; a task is measured on the first of each whose heads all take part in its loss."""


def _merged(subject: Subject, family: str, task: Task) -> None:
    if not subject.merges:
        raise ConfigError("there is no merged form")
    merged_there(subject, family, task)


def _quantised(subject: Subject, family: str, task: Task) -> None:
    with in_four_bits(subject):
        learns(subject, family, task=task)


MODES: dict[str, tuple[str, Callable[[Subject, str, Task], None]]] = {
    "T": ("trains: every trainable tensor learns, and nothing else moves", works),
    "R": ("with activations recomputed", lambda s, f, t: learns(s, f, t, RECOMPUTING)),
    "B": ("on a base in bfloat16", lambda s, f, t: learns(s, f, t, Build(backbone={"dtype": "bfloat16"}))),
    "M": ("merged, the model is the same", _merged),
    "Q": ("on a base in 4 bits", _quantised),
}


def page(suites: Sequence[Suite[Any]]) -> str:
    """The tables as Markdown."""
    strategies, tasks, sources = (
        [s for s in suites if isinstance(s.subject, kind)] for kind in (Subject, TaskSubject, SourceSubject)
    )  # fmt: skip
    head = "# What works where\n\nMade by `ftlab check --all --matrix docs/reference/matrix.md`; every entry was run on tiny models.\n"
    parts = [head, *_checks("Checks", strategies)]
    if strategies and tasks:
        parts += ["## Tasks\n", _products(strategies, [s.subject for s in tasks])]
    for task, families in ((LANGUAGE, DECODERS), (CLASSES, FAMILIES)):
        rows = [[family, *(_cell(s.subject, family, task) for s in strategies)] for family in families]
        parts += [f"## {type(task).__name__}\n", _grid(["family", *_names(strategies)], rows)] if strategies else []
    legend = "\n".join(f"* **{letter}** {text}" for letter, (text, _) in MODES.items())
    parts += [f"## Legend\n\n{legend}\n* **refused** by the strategy, with the reason\n"] if strategies else []
    return "\n".join([*parts, *_checks("Checks of tasks", tasks), *_checks("Checks of data sources", sources)])


def _names(suites: Sequence[Suite[Any]]) -> list[str]:
    return [type(s.subject.plugin).__name__ for s in suites]


def _products(strategies: Sequence[Suite[Any]], tasks: Sequence[TaskSubject]) -> str:
    """Every strategy with every task, on the tasks' own rows."""
    rows = []
    for subject in tasks:
        for families in BOTH_KINDS:
            family = next((f for f in families if _takes(replace(subject, chosen=f))), None)
            if family is not None:
                cells = (_cell(replace(s.subject, rows=subject.rows), family, subject.bound) for s in strategies)
                rows.append([f"{type(subject.task).__name__} ({family})", *cells])
    return _grid(["task", *_names(strategies)], rows)


def _takes(subject: TaskSubject) -> bool:
    """Whether the task takes the subject's family, and trains every head of its model."""
    try:
        with apart(subject):
            subject.module()
            heads(subject)
    except (FtlabError, BrokenError):
        return False
    return True


def _checks(title: str, suites: Sequence[Suite[Any]]) -> list[str]:
    reasons: list[str] = []

    def mark(suite: Suite[Any], check: str) -> str:
        verdict = suite.verdict(check)
        if verdict.state in ("declared", "failed"):
            reasons.append(f"{type(suite.subject.plugin).__name__}, {check}: {' '.join(verdict.reason.split())}")
        return f"no ({len(reasons)})" if verdict.state == "declared" else _MARKS[verdict.state]

    if not suites:
        return []
    checks = suites[0].subject.checks
    rows = [[check, *(mark(suite, check) for suite in suites)] for check in checks]
    listed = "\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
    about = "\n".join(f"* **{name}** {check.about}" for name, check in checks.items())
    return [f"## {title}\n", "\n".join([_grid(["check", *_names(suites)], rows), listed, "", about, ""])]


def _cell(subject: Subject, family: str, task: Task) -> str:
    """Letters of the modes that work; refused where the strategy refuses the first of them."""
    found = ""
    for letter, (_, measure) in MODES.items():
        try:
            with apart(subject):
                measure(subject, family, task)
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
