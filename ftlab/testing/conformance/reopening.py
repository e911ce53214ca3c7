"""What a fresh process makes of what another one wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ftlab import checkpoint as ckpt
from ftlab import strict_yaml
from ftlab.export import put
from ftlab.loading import load
from ftlab.parity import REARRANGED
from ftlab.testing.conformance.check import alike, require
from ftlab.testing.conformance.examined import Examined
from ftlab.testing.conformance.making import made
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.tensors import logits


def restore(subject: Subject, material: dict[str, Any], folder: Path) -> None:
    """Owned tensors into a model that is built under another seed: `ftlab.load` knows none."""
    module = subject.module(seed=99)
    owned = subject.strategy.owned(module.adapted)
    require(owned == material["owned"].keys(), "in a fresh process the strategy owns other tensors")
    put(module.adapted, material["owned"])
    found = logits(module.adapted, material["inputs"])
    alike(material["logits"], found, REARRANGED, "a fresh process with the checkpoint's tensors has other logits")


def reopen(subject: Subject, material: dict[str, Any], folder: Path) -> None:
    """An exported folder."""
    found = logits(load(material["folder"]).model, material["inputs"])
    alike(material["logits"], found, REARRANGED, "opened in a fresh process, the exported model has other logits")


def through_yaml(subject: Examined, material: dict[str, Any], folder: Path) -> None:
    """The plugin as YAML, through the parser of `ftlab fit`, and as YAML again."""
    path = folder / "config.yaml"
    spec = ckpt.spec_of(subject.plugin)
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    read = strict_yaml.read(path)
    again = made(read["class_path"], read["init_args"], subject.kind)
    for key, old, new in ckpt.differences(spec, ckpt.spec_of(again)):
        require(False, f"written as YAML and read again, {key or 'the class'} is {new!r} instead of {old!r}")
    require(again == subject.plugin, "written as YAML and read again, it is another")
