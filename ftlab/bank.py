"""One backbone in memory, many finished runs on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError, suggest
from ftlab.loading import Loaded, load
from ftlab.numerics import frozen_sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class AdapterBank:
    """Finished runs of one backbone, ready to be switched between.

    Every run has modules of its own; the tensors that are the same to the last bit, such as a frozen base, are held once. So a run's
    outputs are those of the run loaded alone, whatever its strategy, and switching moves no weights.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Loaded] = {}
        self._tensors: dict[tuple[object, ...], list[nn.Parameter]] = {}
        self._device = torch.device("cpu")

    def add(self, name: str, source: str | Path, checkpoint: str = "best") -> None:
        """Load a run, and let go of what the bank has already.

        Args:
            name: What to call it.
            source: The folder of a run, or an exported folder.
            checkpoint: Of a run: best, last, or a file.

        Raises:
            ConfigError: The name is taken, or there is no such folder; see `ftlab.load` for what else is refused.
        """
        if name in self._loaded:
            raise ConfigError(f"the bank has '{name}' already; remove it first, or choose another name.")
        loaded = load(source, checkpoint)
        self._share(loaded.model.to(self._device))
        self._loaded[name] = loaded

    def remove(self, name: str) -> None:
        """Forget a run; tensors that no other one uses are freed."""
        self.use(name)
        del self._loaded[name]
        used = {p for loaded in self._loaded.values() for p in loaded.model.parameters()}
        for key, held in list(self._tensors.items()):
            self._tensors[key] = [p for p in held if p in used]

    def use(self, name: str) -> nn.Module:
        """The model of a run, in evaluation mode.

        Raises:
            ConfigError: The bank has none of that name.
        """
        if name not in self._loaded:
            raise ConfigError(f"the bank has no '{name}'; {suggest(name, self._loaded)}")
        return self._loaded[name].model

    def tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a run."""
        self.use(name)
        return self._loaded[name].tokenizer

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
        """The logits of a batch in which every row is for a run of its own.

        Args:
            inputs: What the models are called with, each (B, …).
            names: The run of each row (B).

        Returns:
            For each row, the logits that its run gives it, (T, V) or (V).
        """
        rows: dict[int, Tensor] = {}
        for name in dict.fromkeys(names):
            places = [i for i, other in enumerate(names) if other == name]
            found = self.use(name)(**{key: t[places] for key, t in inputs.items()}).logits
            rows |= dict(zip(places, found, strict=True))
        return [rows[i] for i in range(len(names))]

    def bytes(self) -> int:
        """Bytes of all parameters, shared ones once."""
        held = {p for loaded in self._loaded.values() for p in loaded.model.parameters()}
        return sum(p.numel() * p.element_size() for p in held)

    def to(self, device: torch.device | str) -> AdapterBank:
        """Move everything, and what is added later; what is shared stays shared."""
        self._device = torch.device(device)
        for loaded in self._loaded.values():
            loaded.model.to(device)
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def _share(self, model: nn.Module) -> None:
        """Replace the frozen parameters of `model` by equal ones that the bank holds."""
        model.requires_grad_(False)
        replaced: dict[nn.Parameter, nn.Parameter] = {}
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if type(parameter) is nn.Parameter:
                    if parameter not in replaced:
                        replaced[parameter] = self._held(parameter)
                    setattr(module, name, replaced[parameter])

    def _held(self, parameter: nn.Parameter) -> nn.Parameter:
        """An equal parameter of the bank, else this one, which the bank then holds."""
        sums = frozen_sums([("", parameter)]).get("")
        key = (parameter.dtype, tuple(parameter.shape), sums)
        for other in self._tensors.setdefault(key, []):
            if torch.equal(other, parameter):
                return other
        self._tensors[key].append(parameter)
        return parameter
