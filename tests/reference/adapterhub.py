"""Logits and gradients of AdapterHub's own package, for weights that are given to it.

It runs in an environment of its own, because the package needs an older transformers: `pip install torch==2.13.0 adapters==1.3.0`
(which takes transformers 4.57.6), then `python adapterhub.py FOLDER …`. Each folder holds a `model`, the `case.json` {"auto", "kind",
"settings"} and the adapter's tensors and the inputs in `given.safetensors`; logits and gradients go to `found.safetensors`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import adapters  # type: ignore[import-not-found, unused-ignore]
import torch
import transformers
from adapters import DoubleSeqBnConfig, ParBnConfig
from adapters.configuration import ReftConfig  # type: ignore[import-not-found, unused-ignore]
from safetensors.torch import load_file, save_file

PARTS = {"adapter_down.0.weight": "down", "adapter_down.0.bias": "down_bias", "adapter_up.weight": "up", "adapter_up.bias": "up_bias"}
KINDS: dict[str, Any] = {"bottleneck": DoubleSeqBnConfig, "parallel": ParBnConfig, "loreft": ReftConfig}


def bottlenecks(model: Any) -> dict[str, torch.nn.Parameter]:
    """Our names, `layer.place.part`, for its tensors."""
    places = {"mh_adapter": "attention", "output_adapter": "mlp"}
    return {
        f"{number}.{places[place]}.{part}": adapter.get_parameter(theirs)
        for number, found in model.get_adapter("a").items()
        for place, adapter in found.items()
        for theirs, part in PARTS.items()
    }


def edits(model: Any, given: dict[str, torch.Tensor]) -> dict[str, torch.nn.Parameter]:
    """The same for LoReFT; its rotation is set and not compared, being another function of other parameters."""
    found: dict[str, torch.nn.Parameter] = {}
    for number, layer in model.base_model.iter_layers():
        for index, unit in enumerate(layer.reft_layer.refts["a"].units):
            unit.projection.weight = given[f"{number}.{index}.rotation"]
            found |= {f"{number}.{index}.source": unit.learned_source.weight, f"{number}.{index}.bias": unit.learned_source.bias}
    return found


def run(folder: Path) -> None:
    """One case."""
    case, given = json.loads((folder / "case.json").read_text()), load_file(folder / "given.safetensors")
    model = getattr(transformers, case["auto"]).from_pretrained(folder / "model", attn_implementation="eager")
    adapters.init(model)
    model.add_adapter("a", config=KINDS[case["kind"]](**case["settings"]))
    model.train_adapter("a")
    model.eval()
    own = edits(model, given) if case["kind"] == "loreft" else bottlenecks(model)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(given[name])
    logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    logits[given["attention_mask"].bool()].pow(2).mean().backward()
    found = {f"gradient.{name}": p.grad for name, p in own.items() if p.grad is not None}
    save_file({"logits": logits.detach().contiguous(), **found}, folder / "found.safetensors")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
