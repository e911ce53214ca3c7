"""Any method of PEFT that injects layers, with what its authors' training loops do for it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab.adapters import ADAPTER, save_injected, save_lora, starts_in_base
from ftlab.batch import Batch
from ftlab.errors import ConfigError, EnvironmentFault, suggest
from ftlab.native import save_native
from ftlab.strategies.base import NotMergeableError, Traits, TuningStrategy
from ftlab.strategies.peft_data import FROM_DATA, fold_start, keep_base, lora_layers, prepare_lora, splits_base
from ftlab.strategies.peft_loop import NAME, attach, bridge_of
from ftlab.strategies.peft_options import Plain, build_config, fields_of, method_named
from ftlab.strategies.targets import leaf_names, match_targets

log = logging.getLogger(__name__)

NATIVE = {"POLY": "PEFT's own class needs the number of a task with every batch"}
"""Methods whose folder plain PEFT could not open to the same outputs, with the reason."""
UNMERGEABLE = ("ADAPTION_PROMPT", "LILY", "POLY")


@dataclass(frozen=True, kw_only=True)
class Peft(TuningStrategy):
    """Any method of PEFT that adapts by injected layers, by PEFT's names; PEFT's documentation describes its fields.

    Args:
        method: PEFT's name of the method, such as ADALORA, BOFT or VERA.
        options: The method's own fields as PEFT calls them; target_modules may also be all-linear.
        init_batches: Batches of training data that the data-driven starts of LoRA (eva, corda, lora_ga) see.
    """

    traits = Traits(mergeable=None, learning_rate=1e-3, paper="Mangrulkar et al. 2022, PEFT", example={"method": "LORA"})

    method: str
    options: dict[str, Plain] = field(default_factory=dict)
    init_batches: int = 8

    def __post_init__(self) -> None:
        if self.init_batches < 1:
            raise ConfigError(f"model.tuning.init_batches is {self.init_batches}; it must be 1 or more.")
        config = self._config({})
        if self._init() == "eva" and (config.eva_config is None or config.eva_config.rho != 1.0):
            raise ConfigError(
                "model.tuning.options.init_lora_weights is eva, which by default gives every layer a rank that depends on the data, "
                "so that no checkpoint would fit again; set model.tuning.options.eva_config to {rho: 1.0}."
            )

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        given = self._from_model(model, heads)
        config = self._config(given)
        if self._init() in ("corda", "lora_ga"):
            config.init_lora_weights = True  # until there is data
        if self._init() == "loftq" and not torch.cuda.is_available():
            raise EnvironmentFault(
                "model.tuning.options.init_lora_weights is loftq, which PEFT computes on a GPU, and there is none; use QLoRA."
            )
        weights = _weights(model) if splits_base(self._init()) else {}
        inject(model, heads, config)
        if weights:
            keep_base(model, weights)
        if self._method() == "POLY":
            _one_task(model)
        return model

    def prepare(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        init = self._init()
        if init not in FROM_DATA:
            return
        first = list(itertools.islice(batches, self.init_batches))
        if not first:
            raise ConfigError(f"model.tuning.options.init_lora_weights is {init}, which needs training data, and there is none.")
        prepare_lora(model, bridge_of(model).tuner, str(init), first)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            state = model.state_dict()
            for name in sorted(self.owned(model)):  # every rank saw other rows
                torch.distributed.broadcast(state[name].data, src=0)

    def extra_losses(self, model: nn.Module, outputs: object, batch: Batch) -> dict[str, Tensor]:
        return bridge_of(model).losses()

    def on_gradients(self, model: nn.Module, step: int) -> None:
        bridge_of(model).before_step()

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        bridge_of(model).after_step(step, total)

    def owned(self, model: nn.Module) -> frozenset[str]:
        beside = {n for n, _ in model.named_buffers() if NAME in n.split(".") or "ftlab_start" in n.split(".")}
        return super().owned(model) | (beside & model.state_dict().keys())

    def save(self, model: nn.Module, folder: Path) -> None:
        save_bridged(
            self, model, folder, NATIVE.get(self._method()) or ("the base is changed by LoftQ" if self._init() == "loftq" else None)
        )

    def merge(self, model: nn.Module) -> nn.Module:
        if self._method() in UNMERGEABLE:
            raise NotMergeableError(f"PEFT's {self._method()} has no merged form; export the adapter instead.")
        return merge_bridged(model)

    def _method(self) -> str:
        return method_named(self.method)

    def _init(self) -> object:
        return self.options.get("init_lora_weights")

    def _config(self, given: Mapping[str, object]) -> Any:
        fixed: dict[str, object] = {"total_step": 2**31} if self._method() == "ADALORA" else {}  # the run's own is set at its first step
        if self._method() == "POLY" and self.options.get("n_tasks", 1) != 1:
            raise ConfigError(f"model.tuning.options.n_tasks is {self.options['n_tasks']}; a run has one task, so it must be 1.")
        return build_config(self._method(), self.options, {**fixed, **given})

    def _from_model(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> dict[str, object]:
        """Fields that depend on the model: which modules are meant, and how they store their weights."""
        wanted, given = self.options.get("target_modules"), dict[str, object]()
        if wanted == "all-linear":
            given["target_modules"] = match_targets(model, "all-linear", None, heads, "model.tuning.options.target_modules")
        elif isinstance(wanted, list):
            _check_names(model, [str(name) for name in wanted])
        fields = fields_of(self._method())
        if "fan_in_fan_out" in fields - self.options.keys() and any(isinstance(m, Conv1D) for m in model.modules()):
            given["fan_in_fan_out"] = True
        return given


def inject(model: nn.Module, heads: Mapping[str, nn.Module], config: Any) -> None:
    """Freeze `model`, put the layers of `config` into it, keep PEFT's tuner beside it, and unfreeze the fresh heads.

    Args:
        model: A HF model.
        heads: Name → fresh module.
        config: PEFT's configuration of the method.

    Raises:
        ConfigError: PEFT refuses it on this model, has other layers in it already, or would adapt a fresh head.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer

    method = config.peft_type.value
    if getattr(model, "peft_config", None):
        there = model.peft_config[ADAPTER].peft_type.value  # type: ignore[index, union-attr]
        raise ConfigError(
            f"model.tuning.strategies: {method} and {there} are both PEFT's, which has one configuration for a model; drop one."
        )
    model.requires_grad_(False)
    try:
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, {ADAPTER: config}, ADAPTER)
    except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as error:
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"model.tuning.options: PEFT refuses {method} on {type(model).__name__}: {what}") from error
    model.peft_config = tuner.peft_config
    _in_float32(model)
    for name, head in heads.items():
        found = model.get_submodule(name)
        if found is not head or any(isinstance(m, BaseTunerLayer) for m in head.modules()):
            raise ConfigError(f"model.tuning.options.target_modules means the fresh head '{name}', which is trained whole; leave it out.")
        head.requires_grad_(True)
    attach(model, method, tuner)


def _in_float32(model: nn.Module) -> None:
    """Injection takes the base's type, in which an optimiser's small steps round to nothing.

    PEFT's own cast makes new parameters: frozen ones come back trainable (AdaLoRA's ranks), hooks on them are lost (OSF's projection).
    """
    from peft.tuners._buffer_dict import BufferDict
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in (m for m in model.modules() if isinstance(m, BaseTunerLayer)):
        for place in layer.modules():
            held = place[ADAPTER] if isinstance(place, nn.ModuleDict | nn.ParameterDict | BufferDict) and ADAPTER in place else None
            for tensor in held.parameters() if isinstance(held, nn.Module) else [] if held is None else [held]:
                if tensor.dtype in (torch.bfloat16, torch.float16):
                    tensor.data = tensor.data.float()


def save_bridged(tuning: TuningStrategy, model: nn.Module, folder: Path, obstacle: str | None) -> None:
    """Write PEFT's own format, or ftlab's where that has no place for the result."""
    bridge = bridge_of(model)
    bridge.settle()
    try:
        if obstacle is None:
            save_lora(model, folder) if starts_in_base(model) else save_injected(model, bridge.tuner, folder)
            return
    except ConfigError as error:
        obstacle = str(error)
    log.warning("the export is in ftlab's own format, which plain PEFT does not open: %s", obstacle)
    save_native(tuning, model, folder)


def merge_bridged(model: nn.Module) -> nn.Module:
    """The plain model with PEFT's layers folded in, every sum rounded once.

    Raises:
        NotMergeableError: PEFT cannot fold them into this model.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    tuner = bridge_of(model).tuner
    bases = {m.get_base_layer() for m in model.modules() if isinstance(m, BaseTunerLayer)}
    kinds = {base: next(base.parameters()).dtype for base in bases}
    for base in bases:
        base.float()
    for layer in lora_layers(model).values():
        fold_start(layer)
    try:
        merged: nn.Module = tuner.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError) as error:
        raise NotMergeableError(f"PEFT cannot merge this adapter: {str(error).splitlines()[0]} Export the adapter instead.") from error
    del merged._modules[NAME]
    merged.__dict__.pop("peft_config", None)
    for base, kind in kinds.items():
        base.to(kind)
    return merged


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: m.weight.data.clone() for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}


def _check_names(model: nn.Module, wanted: list[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    for name in wanted:
        if not any(n == name or n.endswith(f".{name}") for n in names):
            raise ConfigError(
                f"model.tuning.options.target_modules has '{name}', which is no module of {type(model).__name__}; "
                f"{suggest(name, leaf_names(names), 5)}"
            )


def _one_task(model: nn.Module) -> None:
    """Give Poly's routers the only task there is."""
    from peft.tuners.poly.layer import PolyLayer

    for module in model.modules():
        if isinstance(module, PolyLayer):
            module.register_forward_pre_hook(_first_task, with_kwargs=True)


def _first_task(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    return args, {**kwargs, "task_ids": torch.zeros(len(args[0]), dtype=torch.long, device=args[0].device)}
