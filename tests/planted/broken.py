"""Strategies that each have one fault in what they train or store, as it has shipped somewhere or might."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError
from ftlab.growth import NewRows
from ftlab.native import TENSORS, save_native
from ftlab.saving import cast_files
from ftlab.strategies.base import Traits
from tests.planted.meant import meant_for
from tests.planted.sound import Low, Merging, Sound, lows


@meant_for("contract")
class WrongHook(Sound):
    """A hook that cannot be called as the contract calls it."""

    def on_step(self, model: nn.Module) -> None:  # type: ignore[override]
        pass


@meant_for("contract")
class DeclaresNoCheck(Sound):
    """A declared failure of a check that does not exist."""

    traits = Traits(fails={"colour": "it has none"})


@meant_for("documented")
class Undocumented(Sound):
    """A field without a line of help."""

    power: int = 1


@meant_for("yaml")
class ChangesItsField(Sound):
    """A field that is changed while it is read, and again when it is read again."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", self.scale * 2)


@meant_for("applies")
class TrainsNothing(Sound):
    """Freezes all and adds nothing."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        return model.requires_grad_(False)


@meant_for("applies")
class RefusesShapes(Sound):
    """Takes a tensor without values for a damaged file."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        if any(p.is_meta for p in model.parameters()):
            raise ConfigError("a weight of the model is damaged; load it again.")
        return super().apply(model, heads)


@meant_for("instances_apart")
class SharesAdapters(Sound):
    """Adapters kept on the class, for every model that is made."""

    cache: ClassVar[dict[str, nn.Parameter]] = {}

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        for i, low in enumerate(lows(made)):
            low.b = self.cache.setdefault(f"{i} {tuple(low.b.shape)}", low.b)
        return made


@meant_for("instances_apart")
class StaleModel(Sound):
    """A hook that works on the model of the last `apply` instead of the one that it is given."""

    latest: ClassVar[list[nn.Module]] = []

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        self.latest[:] = [super().apply(model, heads)]
        return self.latest[0]

    @torch.no_grad()
    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        for low in lows(self.latest[0]):
            low.a.mul_(0.99)


@meant_for("same_seed")
class IgnoresTheSeed(Sound):
    """An initialisation from the machine's own randomness."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        source = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
        for low in lows(made):
            nn.init.normal_(low.a, std=0.2, generator=source)
        return made


@meant_for("same_seed")
class SeedsEverybody(Sound):
    """Seeds the global generator for its own initialisation."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return super().apply(model, heads)


@meant_for("starts_at_base")
class ChangesStepZero(Sound):
    """Both factors start at random, and nobody is told."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        for low in lows(made):
            nn.init.normal_(low.b, std=0.1)
        return made


@meant_for("starts_at_base")
class SaysItChangesStepZero(Sound):
    """Declares what does not happen."""

    traits = Traits(starts_at_base=False)


@meant_for("targets_refused")
class TakesAnyName(Sound):
    """Passes over the names that match nothing."""

    def found(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> list[str]:
        if isinstance(self.targets, str):
            return super().found(model, heads)
        known = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        right = [n for n in known if n.rpartition(".")[2] in self.targets]
        if not right:
            raise ConfigError(f"model.tuning.targets is {self.targets}; no linear map is called so.")
        return right


@meant_for("trains")
class UnusedParameter(Sound):
    """A trainable tensor that no output depends on."""

    class Spare(Low):
        def __init__(self, base: nn.Module, rank: int, scale: float) -> None:
            super().__init__(base, rank, scale)
            self.spare = nn.Parameter(torch.ones(rank))

    layer = Spare


@meant_for("trains_recomputing")
class LostWhenRecomputed(Sound):
    """Cut off from the gradient where activations are recomputed."""

    class Cut(Low):
        recomputed = False

        def low(self, x: Tensor) -> Tensor:
            return super().low(x).detach() if self.recomputed else super().low(x)

    layer = Cut

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        cut = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        for low in lows(made)[1:] if cut else []:
            low.recomputed = True  # type: ignore[assignment]
        return made


@meant_for("base_untouched")
class MovesTheBase(Sound):
    """Changes a frozen weight behind everybody's back."""

    @torch.no_grad()
    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        base = lows(model)[0].base
        assert isinstance(base.weight, Tensor)
        base.weight.data += 1e-3


@meant_for("owned_exactly")
class SavesTooMuch(Sound):
    """Owns the whole model."""

    def owned(self, model: nn.Module) -> frozenset[str]:
        return frozenset(model.state_dict())


@meant_for("checkpoint_restores")
class ForgetsState(Sound):
    """A factor that grows in a Python attribute."""

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        for low in lows(model):
            low.scale *= 1.1


@meant_for("exports")
class SavesHalf(Sound):
    """Rounds what it writes."""

    def save(self, model: nn.Module, folder: Path) -> None:
        save_native(self, model, folder)
        cast_files(folder, torch.float16)


@meant_for("heads")
class ForgetsTheHead(Sound):
    """Leaves a fresh head frozen."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        for head in heads.values():
            head.requires_grad_(isinstance(head, NewRows))
        return made


@meant_for("heads")
class SavesNoHead(Sound):
    """Writes an adapter without the head that was trained with it."""

    def save(self, model: nn.Module, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_native(self, model, folder)
        kept = {name: t for name, t in load_file(folder / TENSORS).items() if name.split(".")[0] not in ("score", "classifier")}
        save_file(kept, folder / TENSORS)


@meant_for("merges")
class DropsTheScale(Merging):
    """Merges without its factor."""

    def factor(self) -> float:
        return 1.0


@meant_for("merges")
class MergesAfterAll(Merging):
    """Says that it cannot be merged, and can."""

    traits = Traits(mergeable=False)
