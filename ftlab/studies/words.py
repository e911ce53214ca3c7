"""The command of a trial, as a person would type it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ftlab.studies.canonical import spelled
from ftlab.studies.spec import StudySpec
from ftlab.studies.variants import Variant

RUNS = "runs"
"""The folder of a study's runs, within the study's."""
RESULTS = "results.csv"
"""The file with a line per trial, within the study's folder."""


def words(
    spec: StudySpec, variant: Variant, seed: int, tuned: Mapping[str, object], folder: Path, identity: str | None = None
) -> list[str]:
    """What follows `ftlab` to run a trial.

    Args:
        spec: The study.
        variant: What is run.
        seed: `seed_everything`.
        tuned: Dotted key → value that tuning chose; wins over the variant's.
        folder: The study's folder.
        identity: The run's id; None makes it from the seed.
    """
    given = ["fit", *(word for target in spec.plugins for word in ("--plugin", target)), "--config", str(spec.base)]
    for key, value in ordered({**spelled(variant.settings), **tuned}).items():
        given += option(key, value)
    given += ["--seed_everything", str(seed), "--run.root", str(folder / RUNS)]
    given += ["--run.study", spec.name, "--run.variant", variant.name]
    return [*given, "--run.name", variant.name, "--run.id", identity or f"seed-{seed}"]


def ordered(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings with every class before its arguments, which a parser can only place below one."""
    return dict(sorted(settings.items(), key=lambda pair: pair[0].count(".")))


def option(key: str, value: object) -> list[str]:
    """A key and its value as words; what is no text as JSON, which is YAML as well."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]
