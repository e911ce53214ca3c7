"""Study files for tests, written into their folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

BASE: dict[str, Any] = {
    "model": {
        "backbone": {"name": "ftlab/tiny-llama"},
        "task": {"class_path": "CausalLM", "init_args": {"block_size": 32}},
        "tuning": {"class_path": "LoRA", "init_args": {"r": 8, "alpha": 16}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3.0e-3}},
    },
    "data": {"source": {"class_path": "PythonDocs", "init_args": {"part": "held-out"}}, "batch_size": 8},
    "trainer": {"max_steps": 4},
}
LORA = {"class_path": "LoRA", "init_args": {"r": 4}}
NORMS = {"class_path": "NormTuning"}
BIASES = {"class_path": "BitFit"}


class Said(NamedTuple):
    code: int
    out: str
    err: str


Dry = Callable[..., Said]


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.dump(content, Dumper=_Plain, sort_keys=False), encoding="utf-8")
    return path


def study(folder: Path, content: dict[str, Any] | None = None, **keys: Any) -> Path:
    """A study of two strategies and what is given; a key that is None is left out."""
    write(folder / "base.yaml", BASE if content is None else content)
    document = {"name": "first", "base": "base.yaml", "factors": {"model.tuning": ["LoRA", "Full"]}, **keys}
    return write(folder / "study.yaml", {k: v for k, v in document.items() if v is not None})


def compose(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"class_path": "Compose", "init_args": {"strategies": list(parts), **fields}}
