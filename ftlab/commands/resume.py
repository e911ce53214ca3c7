"""`--resume`: the arguments of a run that goes on, and what may differ from those it began with."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ftlab import origins, strict_yaml
from ftlab.errors import CheckpointError, ConfigError
from ftlab.given import COMMAND_LINE, Given, flat, given, take
from ftlab.resumed import DATA_FLAG, HELD, MayDiffer, Resumed, advice

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


def check_unchanged(stored: dict[str, Any], values: Sequence[Given], may_differ: MayDiffer) -> None:
    """Refuse what would make the run another one.

    Args:
        stored: The run's own configuration.
        values: What the user gave beside it.
        may_differ: What the user lets differ.

    Raises:
        CheckpointError: A key has another value than in the run.
        ConfigError: A key cannot differ, because the checkpoint itself holds its value.
    """
    held = next((o for o in may_differ.keys if o.startswith(HELD)), None)
    if held is not None:
        raise ConfigError(
            f"--override-resume {held} has no effect: the checkpoint's optimiser and schedule go on; start a new run instead."
        )
    before = dict(leaf for g in flat(stored, "", "config.yaml") for leaf in _leaves(_plain(g.key), g.value))
    for key, value in _effective(values).items():
        if may_differ.allows(key) or any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_DIFFER):
            continue
        old = before.get(key)
        if not _same(old, value):
            raise CheckpointError(f"{key} is {value!r}, the run has {old!r}; {advice(key)}")


def _effective(values: Sequence[Given]) -> dict[str, Any]:
    """What holds in the end: a later value replaces an earlier one, and another class the arguments of the one before it."""
    found: dict[str, Any] = {}
    for key, value in (leaf for g in values for leaf in _leaves(_plain(g.key), g.value)):
        if key in found and not _same(found[key], value):
            found = {k: v for k, v in found.items() if not k.startswith(f"{key}.")}
        found[key] = value
    return found


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
    if isinstance(old, str) and type(new) in (int, float):  # trainer.devices, a list, text or number, is stored as text
        with suppress(ValueError):
            return bool(float(old) == new)
    return bool(old == new or (isinstance(old, str) and isinstance(new, str) and old.rpartition(".")[2] == new))


def apply(arguments: Sequence[str]) -> tuple[list[str], Resumed | None]:
    """Put a run's own configuration before what the user wrote.

    Args:
        arguments: What follows `fit`, with `--resume RUN`, `--resume auto` or neither.

    Returns:
        The arguments to run with, and the run that goes on; None for a new run.

    Raises:
        CheckpointError: Something differs that must not, or a plugin of the run is not there.
        ConfigError: There is no such run.
    """
    words, targets = take(arguments, "--resume")
    words, overrides = take(words, "--override-resume")
    words, data = [w for w in words if w != DATA_FLAG], DATA_FLAG in words
    if not targets:
        lone = "--override-resume" if overrides else DATA_FLAG if data else None
        if lone:
            raise ConfigError(f"{lone} goes with --resume RUN; add it, or leave this out.")
        return words, None
    folder = _automatic(words) if targets[-1] == "auto" else find_run(targets[-1])
    if folder is None:
        return words, None
    named = _NAMES if targets[-1] == "auto" else ()
    stored = strict_yaml.read(folder / "config.yaml")
    origins.require(folder, stored)
    check_unchanged(stored, given(words), MayDiffer(data=data, keys=(*overrides, *named)))
    may_differ = MayDiffer(data=data, keys=tuple(overrides))
    return ["--config", str(folder / "config.yaml"), *words], Resumed(folder=folder, may_differ=may_differ)


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
