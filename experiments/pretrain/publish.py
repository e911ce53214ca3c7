"""Stores a trained model as a shipped asset: `python publish.py MODEL_FOLDER ASSET_FOLDER [CHECKPOINT]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

LIMIT = 4 * 1024**2
# How this copy came about, which says nothing about the next one.
LOCAL = {"is_local", "local_files_only", "_from_model_config", "_name_or_path"}


def publish(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write weights in bfloat16, which halves the wheel, and a configuration that says float32.

    `from_pretrained` follows the configuration, so the model computes in float32 unless it is told otherwise.

    Raises:
        SystemExit: The folder came out larger than the wheel has room for.
    """
    model.float().save_pretrained(out)
    weights = out / "model.safetensors"
    stored = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}
    save_file(stored, weights, metadata={"format": "pt"})
    # safetensors makes its file private to the user, and a wheel would keep it so.
    weights.chmod(0o644)
    tokenizer.save_pretrained(out)
    for path in out.glob("*_config.json"):
        settings = {key: value for key, value in json.loads(path.read_text()).items() if key not in LOCAL}
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {sum(t.numel() for t in stored.values())} parameters, {size} bytes")
    if size > LIMIT:
        raise SystemExit(f"{out} has {size} bytes, more than {LIMIT}.")


def trained(folder: Path, checkpoint: Path) -> PreTrainedModel:
    """The model that `folder` configures, with all its weights from a checkpoint of `ftlab fit`."""
    model = _class_of(folder)(AutoConfig.from_pretrained(folder))
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in stored.items()})
    return model


def _class_of(folder: Path) -> type[PreTrainedModel]:
    found: type[PreTrainedModel] = getattr(transformers, AutoConfig.from_pretrained(folder).architectures[0])
    return found


def main(folder: Path, out: Path, *checkpoint: Path) -> None:
    """Publish the weights of the checkpoint, else those of the folder, with the folder's configuration and tokenizer."""
    model = trained(folder, *checkpoint) if checkpoint else _class_of(folder).from_pretrained(folder)
    publish(model, AutoTokenizer.from_pretrained(folder), out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
