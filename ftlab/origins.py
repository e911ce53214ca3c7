"""What a run was made with: versions of packages, and where its plugins came from. `versions.json` in its folder holds both.

Nothing here imports what it asks about.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ftlab import registry
from ftlab.errors import CheckpointError
from ftlab.given import SLOTS
from ftlab.run_folder import write_json

FILE = "versions.json"
_PACKAGES = ("bitsandbytes", "ftlab", "lightning", "numpy", "peft", "tokenizers", "torch", "transformers")
"""What computes a step."""
_GIT_SECONDS = 5.0
_WORDS = {"strategies": "strategy", "tasks": "task", "data": "data source"}


def versions(class_paths: Iterable[str]) -> dict[str, str]:
    """Package → version: Python, what computes a step, and what the classes come from.

    Args:
        class_paths: Of plugins; those that `--plugin` gave have no version.
    """
    found = {p.package: p.version for p in _plugins(class_paths) if p.version != "-"}
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}, **found}


def record(config: Mapping[str, Any]) -> dict[str, object]:
    """The content of `versions.json`.

    Args:
        config: The run's complete configuration.
    """
    paths = [path for _, path in _chosen(config)]
    plugins = {p.class_path: {"package": p.package, "version": p.version} for p in _plugins(paths)}
    return {"packages": versions(paths), "plugins": plugins, "git": git_state(Path.cwd())}


def note(folder: Path, key: str, value: object) -> None:
    """Add to the `versions.json` of a run what is known later."""
    held = json.loads((folder / FILE).read_text(encoding="utf-8"))
    write_json(folder / FILE, {**held, key: value})


def git_state(folder: Path) -> dict[str, object] | None:
    """The commit that a folder is at, and whether anything in it differs from that; None outside a repository."""
    command = ["git", "--no-optional-locks", "-C", str(folder)]
    try:
        commit, status = (
            subprocess.run([*command, *words], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(status)}


def require(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a run whose plugins are not there.

    Args:
        folder: The run's folder.
        config: Its configuration.

    Raises:
        CheckpointError: Names the class, its package and its version.
    """
    for slot, path in _chosen(config):
        kind = SLOTS[slot]
        if any(path in (p.name, p.class_path) for p in (*registry.plugins(kind), *registry.faulty(kind))):
            continue
        raise CheckpointError(f"{folder} needs {_WORDS[kind]} {path.rpartition('.')[2]} from {_source(folder, path)}.")


def table(then: Mapping[str, object], now: Mapping[str, str]) -> str:
    """One line for each package whose version is another one; empty where none is."""
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    rows = [(name, str(then.get(name, "-")), now.get(name, "-")) for name in names]
    return "".join(f"\n  {name:<14} {old:<14} -> {new}" for name, old, new in rows)


def _chosen(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(slot, class path) of every plugin that a configuration names, those that others hold included."""
    for slot in SLOTS:
        section, _, name = slot.partition(".")
        entry = config.get(section, {}).get(name)
        for path in [entry] if isinstance(entry, str) else class_paths(entry):
            yield slot, path


def class_paths(value: object) -> Iterator[str]:
    """Every `class_path` in nested mappings and lists."""
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        value = list(value.values())
    for inner in value if isinstance(value, list) else []:
        yield from class_paths(inner)


def _plugins(class_paths: Iterable[str]) -> list[registry.Plugin]:
    wanted = set(class_paths)
    return [p for p in registry.plugins() if p.class_path in wanted]


def _source(folder: Path, path: str) -> str:
    """Where a class came from, and what to do."""
    entry = _stored(folder).get(path)
    if not isinstance(entry, Mapping):
        return f"a package that the run did not write down ({path}); install it, or name its file with --plugin"
    package, version = entry.get("package"), entry.get("version")
    if version == "-":
        return f"--plugin {package}; add that"
    try:
        there = f"version {metadata.version(str(package))} is installed and has no {path}"
    except metadata.PackageNotFoundError:
        there = "it is not installed"
    return f"package {package}=={version}, but {there}; install that version"


def _stored(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))["plugins"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the message that is on its way then says that nothing was written down
    return found if isinstance(found, Mapping) else {}
