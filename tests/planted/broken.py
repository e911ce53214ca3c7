"""Strategies that each have one fault, as it has shipped somewhere or might; `MEANT` says which check must find it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.growth import NewRows
from ftlab.heads import body_of, output_of
from ftlab.native import TENSORS, save_native
from ftlab.saving import cast_files
from ftlab.strategies.base import Traits, TuningStrategy
from tests.planted.sound import Low, Merging, Sound, lows

MEANT: dict[type[TuningStrategy], str] = {}


def meant_for(check: str) -> type:
    """Decorator: the class is a frozen dataclass, and its fault is found by `check`."""

    def register(cls: type[TuningStrategy]) -> type[TuningStrategy]:
        made = dataclass(frozen=True, kw_only=True)(cls)
        MEANT[made] = check
        return made

    return register  # type: ignore[return-value]


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


@meant_for("tied_embeddings")
class UntiesEmbeddings(Sound):
    """Makes the tied output embedding a tensor of its own, and trains it."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made, output = super().apply(model, heads), output_of(model)
        if model.config.tie_word_embeddings and isinstance(output, nn.Linear):  # type: ignore[union-attr]
            output.weight = nn.Parameter(output.weight.detach().clone())
        return made


@meant_for("grown_vocabulary")
class FreezesNewTokens(Sound):
    """Leaves the rows of new tokens frozen."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        for head in heads.values():
            head.requires_grad_(not isinstance(head, NewRows))
        return made


@meant_for("padding")
class DependsOnPadding(Sound):
    """A factor that follows the length of the padded row."""

    class Long(Low):
        def low(self, x: Tensor) -> Tensor:
            return super().low(x) * (1 + 0.1 * x.shape[1]) if x.ndim == 3 else super().low(x)

    layer = Long


@meant_for("neighbours")
class NeighboursMatter(Sound):
    """Takes the mean over the batch away, as a batch norm does."""

    class Normed(Low):
        def low(self, x: Tensor) -> Tensor:
            return super().low(x - x.mean(0, keepdim=True))

    layer = Normed


@meant_for("conv1d")
class WrongWayRound(Sound):
    """Reads the sizes of any weight as a linear map's, and applies itself to maps that lie the other way round."""

    class Sized(Low):
        def measured(self, base: nn.Module) -> tuple[int, int]:
            if isinstance(base, nn.Linear):
                return super().measured(base)
            assert isinstance(base.weight, Tensor)
            return int(base.weight.shape[0]), int(base.weight.shape[1])

    layer = Sized


@meant_for("quantised_base")
class ReadsPackedShape(Sound):
    """Takes the shape of a packed weight for that of its map."""

    class Sized(Low):
        def measured(self, base: nn.Module) -> tuple[int, int]:
            if not isinstance(base, nn.Linear):
                return super().measured(base)
            return int(base.weight.shape[0]), int(base.weight.shape[1])

    layer = Sized


@meant_for("encoder")
class DecodersOnly(Sound):
    """Knows the names of one family, and does not say so."""

    targets: str | list[str] = r".*(q_proj|c_attn)"


@meant_for("classification")
class AnotherPadToken(Sound):
    """Tells the model of another token to pad with, so that the class is read from the padding."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        model.config.pad_token_id = 0  # type: ignore[union-attr]
        return super().apply(model, heads)


@meant_for("embedding_targets")
class TakesEmbeddings(Sound):
    """Wraps whatever bears a name as if it were a linear map."""

    def found(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> list[str]:
        tables = [n for n, m in model.named_modules() if isinstance(m, nn.Embedding) and n.rpartition(".")[2] in self.targets]
        return tables or super().found(model, heads)


@meant_for("compiles")
class AnotherWhenCompiled(Sound):
    """A branch in Python that is decided while compiling."""

    class Branching(Low):
        def low(self, x: Tensor) -> Tensor:
            return super().low(x) * (0.5 if torch.compiler.is_compiling() else 1.0)

    layer = Branching


@meant_for("extra_losses")
class DetachedLoss(Sound):
    """A penalty that is logged and trains nothing."""

    def extra_losses(self, model: nn.Module, outputs: object, batch: Batch) -> dict[str, Tensor]:
        return {"size": torch.stack([low.b.detach().square().sum() for low in lows(model)]).sum()}


@meant_for("float32")
class WrongType(Sound):
    """Trains in bfloat16 over a base in float32."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        for low in lows(made):
            low.a.data, low.b.data = low.a.data.bfloat16(), low.b.data.bfloat16()
        return made


@meant_for("bf16_mixed")
class WithoutAutocast(Sound):
    """An operation in place, which autocast does not cover."""

    class InPlace(Low):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.base(x)
            flat = F.linear(x, self.a.to(x.dtype)).flatten(0, -2)
            return out.flatten(0, -2).addmm_(flat, self.b.t(), alpha=self.scale).view_as(out)

    layer = InPlace


@meant_for("bf16_true")
class ConstantInFloat32(Sound):
    """A constant that stays float32 in a product."""

    class Constant(Low):
        def low(self, x: Tensor) -> Tensor:
            low = F.linear(x, self.a.to(x.dtype))
            return F.linear(low @ torch.eye(low.shape[-1], dtype=torch.float32), self.b.to(x.dtype))

    layer = Constant


@meant_for("step_hooks")
class CountsMicroBatches(Sound):
    """A schedule that moves with every forward pass in training instead of every step."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        made = super().apply(model, heads)
        first = lows(made)[0]
        first.register_buffer("count", torch.zeros(()))

        def count(module: nn.Module, arguments: object) -> None:
            if module.training and torch.is_grad_enabled():
                first.count += 1  # type: ignore[assignment, operator]

        body_of(made).register_forward_pre_hook(count)
        return made

    def on_gradients(self, model: nn.Module, step: int) -> None:
        for low in lows(model):
            if low.b.grad is not None:
                low.b.grad.mul_(0.5 ** lows(model)[0].count)  # type: ignore[operator]


@meant_for("resume")
class StartsOver(Sound):
    """A schedule that counts its own calls."""

    def on_gradients(self, model: nn.Module, step: int) -> None:
        calls: int = getattr(model, "calls", 0) + 1
        model.calls = calls  # type: ignore[assignment]
        for low in lows(model):
            if low.b.grad is not None:
                low.b.grad.mul_(0.5**calls)


@meant_for("ddp")
class RanksDrift(Sound):
    """A hook that does something else on each rank."""

    @torch.no_grad()
    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        for low in lows(model):
            low.b.mul_(1 - 0.1 * int(os.environ.get("RANK", "0")))


@meant_for("fsdp2")
class KeepsAParameter(Sound):
    """Computes with a parameter that it keeps beside the module."""

    class Keeping(Low):
        def __init__(self, base: nn.Module, rank: int, scale: float) -> None:
            super().__init__(base, rank, scale)
            self.kept = [self.b]

        def low(self, x: Tensor) -> Tensor:
            return F.linear(F.linear(x, self.a.to(x.dtype)), self.kept[0].to(x.dtype))

    layer = Keeping
