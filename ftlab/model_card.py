"""The README.md of what is exported: where it comes from and how to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import ftlab

_PACKAGES = ("torch", "transformers", "peft", "lightning")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about the run.

    Args:
        config: Its complete configuration as plain values, secrets removed.
        metrics: Its figures, such as `val_loss`.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


def card(facts: Facts, base: str, opening: str, adapter: bool) -> str:
    """The text of a model card.

    Args:
        facts: About the run.
        base: The base model, as configured.
        opening: Python lines that open the folder.
        adapter: Whether the base is needed to open it.
    """
    header: dict[str, object] = {"library_name": "peft" if adapter else "transformers", "tags": ["ftlab"]}
    if base.count("/") == 1 and not base.startswith(("ftlab/", ".", "~")) and not Path(base).is_dir():
        header["base_model"] = base
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# {'Adapter for' if adapter else 'Model tuned from'} {base}\n",
        f"## Open it\n\n```python\n{opening}```\n",
        _section("Run", {"seed": facts.config.get("seed_everything"), **_choices(facts.config)}),
        _section("Metrics", {k: f"{v:.6g}" for k, v in facts.metrics.items() if isinstance(v, int | float)}),
        _section("Versions", {"ftlab": ftlab.__version__, **{name: metadata.version(name) for name in _PACKAGES}}),
    ]
    return "\n".join(parts)


def _choices(config: Mapping[str, Any]) -> dict[str, object]:
    model, data = config.get("model", {}), config.get("data", {})
    sections = {"task": model.get("task"), "tuning": model.get("tuning"), "data source": data.get("source")}
    chosen: dict[str, object] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping):
            chosen[name] = str(value.get("class_path", "")).rpartition(".")[2]
            chosen |= {f"{name}: {key}": inner for key, inner in dict(value.get("init_args") or {}).items() if inner not in (None, [], {})}
    return chosen


def _section(title: str, rows: Mapping[str, object]) -> str:
    """A table; a value is one line of text without the characters that end a cell or open HTML."""
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items() if value is not None]
    return "\n".join([f"## {title}\n", "| | |", "|---|---|", *lines, ""]) if lines else ""


def _cell(value: object, most: int = 200) -> str:
    text = " ".join(str(value).split())
    text = text if len(text) <= most else f"{text[:most]} …"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
