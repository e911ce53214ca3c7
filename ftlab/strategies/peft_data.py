"""Starts of LoRA that come from the base weights or from data, with the base left as it is.

PEFT takes such a start out of the base: W − s·B₀·A₀. Here W stays, and the layer's output is less s·B₀·A₀·x: the base is then the one
that other runs share, and a resumed run needs only A₀ and B₀, which its checkpoint holds, not the data.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.adapters import ADAPTER, Start, start_of
from ftlab.batch import Batch
from ftlab.errors import ConfigError

if TYPE_CHECKING:
    from peft import LoraConfig

FROM_DATA = ("corda", "eva", "lora_ga")
"""Values of `init_lora_weights` that need batches."""


def splits_base(init: object) -> bool:
    """Whether PEFT would take this start out of the base weights."""
    return isinstance(init, str) and (init in ("pissa", "olora", "corda", "lora_ga") or init.startswith("pissa_niter_"))


def keep_base(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the base its weights back and have every layer subtract what it started from.

    Args:
        model: With PEFT's LoRA layers in it.
        weights: Name of a layer → its base weight before there were any.
    """
    for name, layer in lora_layers(model).items():
        layer.get_base_layer().weight.data = weights[name]
        start = Start(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight, persistent=True)
        layer.add_module(Start.NAME, start)
        layer.register_forward_hook(_less_start)


def prepare_lora(model: nn.Module, tuner: Any, init: str, batches: Sequence[Batch]) -> None:
    """Initialise every layer from the first batches.

    Args:
        model: With PEFT's LoRA layers in it, B being zero.
        tuner: PEFT's.
        init: One of `FROM_DATA`.
        batches: The batches.

    Raises:
        ConfigError: They are too few, or the method cannot use them.
    """
    with torch.random.fork_rng(devices=[]):
        {"corda": _corda, "eva": _eva, "lora_ga": _lora_ga}[init](model, tuner, batches)


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Name → LoRA layer."""
    from peft.tuners.lora import LoraLayer

    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}


def fold_start(layer: Any) -> None:
    """Take out of the layer's base weight what the layer subtracts from its output."""
    start = start_of(layer)
    if start is not None:
        weight = layer.get_base_layer().weight
        delta = layer.scaling[ADAPTER] * (start.b.float() @ start.a.float())
        weight.data -= (delta.T if layer.fan_in_fan_out else delta).to(weight)


def _less_start(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    start = start_of(layer)
    if start is None or layer.merged or layer.disable_adapters:
        return output
    low = F.linear(args[0].to(start.a.dtype), start.a)
    found: Tensor = output - (layer.scaling[ADAPTER] * F.linear(low, start.b)).to(output.dtype)
    return found


def _eva(model: nn.Module, tuner: Any, batches: Sequence[Batch]) -> None:
    """EVA (Paischer et al. 2024): A from the principal components of each layer's inputs."""
    from peft import initialize_lora_eva_weights

    config = tuner.peft_config[ADAPTER]
    fewest = min(int(b.inputs["attention_mask"].sum()) for b in batches)
    if fewest < config.r:
        raise ConfigError(
            f"model.tuning.options.r is {config.r}, above the {fewest} tokens of a batch, too few for EVA; raise data.batch_size."
        )
    kept = config.target_modules, config.rank_pattern, config.alpha_pattern
    tuner.__dict__["disable_adapter"] = contextlib.nullcontext  # B is zero, so there is nothing to switch off
    try:
        initialize_lora_eva_weights(
            tuner, [_with_labels(b) for b in batches], forward_fn=_without_labels, adapter_name=ADAPTER, show_progress_bar=False
        )
    finally:
        del tuner.__dict__["disable_adapter"]
        config.target_modules, config.rank_pattern, config.alpha_pattern = kept


def _with_labels(batch: Batch) -> dict[str, Tensor]:
    """The inputs, and the labels where they stand at tokens: EVA leaves out what is not scored."""
    labels = [t for t in batch.labels.values() if t.shape == batch.inputs["input_ids"].shape]
    return {**batch.inputs, **({"labels": labels[0]} if len(labels) == 1 else {})}


def _without_labels(tuner: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    tuner(**{name: t for name, t in inputs.items() if name != "labels"})


def _corda(model: nn.Module, tuner: Any, batches: Sequence[Batch]) -> None:
    """CorDA (Yang et al. 2024): the weight's components under the covariance of its inputs."""
    from peft.tuners.lora.corda import preprocess_corda

    modes = [(module, module.training) for module in model.modules()]
    preprocess_corda(model, _on_base_layers(model, tuner), lambda: _run(model, batches))
    for module, mode in modes:
        module.training = mode
    for layer in lora_layers(model).values():
        _start_anew(layer, lambda layer=layer: layer.corda_init(ADAPTER, "corda"))


def _run(model: nn.Module, batches: Sequence[Batch]) -> None:
    for batch in batches:
        for row in range(len(batch.rows)):  # PEFT sums the covariance of one row's tokens at a time
            mask = batch.inputs["attention_mask"][row].bool()
            model(**{name: t[row : row + 1, mask] if t.shape[1:] == mask.shape else t[row : row + 1] for name, t in batch.inputs.items()})


def _lora_ga(model: nn.Module, tuner: Any, batches: Sequence[Batch]) -> None:
    """LoRA-GA (Wang et al. 2024): A and B from the singular vectors of the full gradient."""
    from peft import preprocess_loraga

    if any(len(b.labels) != 1 for b in batches):
        raise ConfigError("model.tuning.options.init_lora_weights is lora_ga, which needs a task with one head; use eva or corda.")
    config = tuner.peft_config[ADAPTER]

    def gradients() -> None:
        for batch in batches:
            model(**batch.inputs, labels=next(iter(batch.labels.values()))).loss.backward()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)  # PEFT counts with it, and embeddings are frozen
        preprocess_loraga(model, _on_base_layers(model, tuner), gradients)
    for layer in lora_layers(model).values():
        _start_anew(layer, lambda layer=layer: layer.lora_ga_init(ADAPTER, config.lora_ga_config))


def _on_base_layers(model: nn.Module, tuner: Any) -> LoraConfig:
    """The configuration under which PEFT's preparations, meant for a model without layers, find the base below the layers."""
    config: LoraConfig = copy.copy(tuner.peft_config[ADAPTER])
    layers = lora_layers(model)
    config.target_modules = {f"{name}.base_layer" for name in layers}
    config.rank_pattern = {f"{name}.base_layer": layer.r[ADAPTER] for name, layer in layers.items()}
    return config


def _start_anew(layer: Any, initialise: Any) -> None:
    """PEFT's own initialisation of one layer, without what it does to the base."""
    parts = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    base, kinds = layer.get_base_layer().weight.data, [p.dtype for p in parts]
    initialise()
    layer.get_base_layer().weight.data = base
    start = start_of(layer)
    assert start is not None
    for part, kind, kept in zip((layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]), kinds, (start.a, start.b), strict=True):
        part.weight.data = part.weight.data.to(kind).contiguous()
        kept.copy_(part.weight.data)
