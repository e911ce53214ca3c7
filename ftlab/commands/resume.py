"""`--resume`: the arguments of a run that goes on, and what may differ from those it began with."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ftlab import strict_yaml
from ftlab.errors import CheckpointError, ConfigError
from ftlab.given import COMMAND_LINE, Given, flat, given, take

MAY_DIFFER = (
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.logger*",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "data.num_workers",
    "save.*",
    "run.predictions",
)
"""Keys that do not change what a step computes; a longer run changes the learning rate of a schedule that ends with it."""

_NAMES = ("run.root", "run.name", "run.id")
"""Keys by which `--resume auto` has found the run."""


_HELD = ("model.optimizer", "model.schedule")
"""Keys whose values live on in the state that a checkpoint holds."""


def find_run(target: str) -> Path:
    """The folder of a run.

    Args:
        target: The folder itself, or its `config.yaml`.

    Raises:
        ConfigError: It is no run.
    """
    path = Path(target).expanduser().resolve()
    folder = path.parent if path.name == "config.yaml" else path
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"--resume {target} is not the folder of a run: it has no config.yaml; name runs/NAME/ID.")
    return folder


def check_unchanged(stored: dict[str, Any], values: Sequence[Given], overrides: Sequence[str]) -> None:
    """Refuse what would make the run another one.

    Args:
        stored: The run's own configuration.
        values: What the user gave beside it.
        overrides: Keys that the user lets differ, by `--override-resume`.

    Raises:
        CheckpointError: A key has another value than in the run.
        ConfigError: A key cannot differ, because the checkpoint itself holds its value.
    """
    held = next((o for o in overrides if o.startswith(_HELD)), None)
    if held is not None:
        raise ConfigError(
            f"--override-resume {held} has no effect: the checkpoint's optimiser and schedule go on; start a new run instead."
        )
    before = dict(leaf for g in flat(stored, "", "config.yaml") for leaf in _leaves(_plain(g.key), g.value))
    for key, value in (leaf for g in values for leaf in _leaves(_plain(g.key), g.value)):
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in (*MAY_DIFFER, *overrides)):
            continue
        old = before.get(key)
        if not _same(old, value):
            advice = (
                "leave it out, or start a new run"
                if key.startswith(_HELD)
                else f"leave it out, start a new run, or add --override-resume {key}"
            )
            raise CheckpointError(f"{key} is {value!r}, the run has {old!r}; {advice}.")


def _plain(key: str) -> str:
    return key.replace(".init_args.", ".").removesuffix(".class_path")


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The class of a value and its arguments one by one: a run's own configuration has every default beside them."""
    if not isinstance(value, dict) or "class_path" not in value:
        yield key, value
        return
    yield key, value["class_path"]
    for name, inner in (value.get("init_args") or {}).items():
        yield from _leaves(f"{key}.{name}", inner)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, int | float) and isinstance(new, str):  # YAML reads 1e-3 as text, a parser with a type as a number
        with suppress(ValueError):
            return float(new) == old
    return bool(old == new or (isinstance(old, str) and isinstance(new, str) and old.rpartition(".")[2] == new))


def apply(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Put a run's own configuration before what the user wrote.

    Args:
        arguments: What follows `fit`, with `--resume RUN`, `--resume auto` or neither.

    Returns:
        The arguments to run with, and the folder of the run that goes on; None for a new run.

    Raises:
        CheckpointError: Something differs that must not.
        ConfigError: There is no such run.
    """
    words, targets = take(arguments, "--resume")
    words, overrides = take(words, "--override-resume")
    if not targets:
        if overrides:
            raise ConfigError("--override-resume goes with --resume RUN; add it, or leave this out.")
        return words, None
    folder = _automatic(words) if targets[-1] == "auto" else find_run(targets[-1])
    if folder is None:
        return words, None
    named = _NAMES if targets[-1] == "auto" else ()
    check_unchanged(strict_yaml.read(folder / "config.yaml"), given(words), (*overrides, *named))
    return ["--config", str(folder / "config.yaml"), *words], folder


def _automatic(words: Sequence[str]) -> Path | None:
    """The folder that `run.root`, `run.name` and `run.id` name, if a run has begun there."""
    chosen = {item.key: item.value for item in given(words)}
    name, identity = chosen.get("run.name"), chosen.get("run.id")
    if not isinstance(name, str) or not isinstance(identity, str):
        raise ConfigError("--resume auto needs run.name and run.id, which name the run whoever starts it; set both.")
    folder = Path(str(chosen.get("run.root", "runs"))).expanduser().resolve() / name / identity
    return folder if (folder / "config.yaml").is_file() else None


def complete(folder: Path, words: Sequence[str]) -> bool:
    """Whether the run has ended and nothing asks it to go further."""
    longer = {"trainer.max_steps", "trainer.max_epochs", "trainer.max_time"}
    asked = {item.key for item in given(words) if item.origin == COMMAND_LINE}
    return (folder / "summary.json").is_file() and not longer & asked
