"""Strategies that each have one fault with some model, input, type or process, as it has shipped somewhere or might."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import Batch
from ftlab.growth import NewRows
from ftlab.heads import body_of, output_of
from tests.planted.meant import meant_for
from tests.planted.sound import Low, Sound, lows


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
    """Knows the names of one family, and does not say so.

    Args:
        targets: Maps to adapt.
    """

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
