"""Which modules of a freshly loaded model hold weights that no file filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ftlab.errors import CheckpointError

if TYPE_CHECKING:
    from ftlab.backbone import Backbone


def body_of(model: nn.Module) -> nn.Module:
    """What stands below a model's heads; the model itself where it has none."""
    body: object = getattr(model, "base_model", model)
    return body if isinstance(body, nn.Module) else model


def output_of(model: nn.Module) -> nn.Module | None:
    """The output embedding, hidden states to logits over the vocabulary; None where the model has none."""
    getter: object = getattr(model, "get_output_embeddings", None)
    output: object = getter() if callable(getter) else None
    return output if isinstance(output, nn.Module) else None


def fresh_modules(model: nn.Module, missing: set[str], backbone: Backbone) -> dict[str, nn.Module]:
    """Name → the largest modules all of whose parameters are fresh.

    Args:
        model: The loaded model.
        missing: Parameters that no stored weight filled.
        backbone: Where it came from. With `fresh` there is no stored weight, and the heads are what stands beside the body; nothing where
            the model is a body alone.

    Raises:
        CheckpointError: A weight of the pretrained network itself is missing, so the file is of another model.
    """
    if backbone.fresh:
        body, output = body_of(model), output_of(model)
        beside = model.named_children() if body is not model else ()
        return {name: m for name, m in beside if m is not body and not any(part is output for part in m.modules())}
    parameters = {name for name, _ in model.named_parameters()}
    found = {_largest(model, name, missing) for name in sorted(missing & parameters)}
    for name in sorted(found):
        if not _may_be_fresh(model, name, missing):
            if name and model.get_submodule(name) is body_of(model):
                raise CheckpointError(
                    f"{backbone.name} has none of the weights of '{name}', the body of {type(model).__name__}: it is of another model, or "
                    "named otherwise; save AutoModel.from_pretrained(…) and the tokenizer into a folder and name that."
                )
            what = name or sorted(missing & parameters)[0]
            raise CheckpointError(
                f"{backbone.name} has no weight for '{what}', which is part of the pretrained network and no head; "
                "the file is damaged or of another model, or the configuration was changed."
            )
    return {name: model.get_submodule(name) for name in sorted(found)}


def _may_be_fresh(model: nn.Module, name: str, missing: set[str]) -> bool:
    """Whether a module may start at random: not an embedding or a layer, not half of a module, not a norm of the body."""
    if not name or _filled(model, name, missing):
        return False
    module, body = model.get_submodule(name), body_of(model)
    around = [*module.modules(), *(model.get_submodule(parent) for parent in _parents(name))]
    if any(isinstance(m, nn.ModuleList) for m in around) or any(isinstance(m, nn.Embedding) for m in module.modules()):
        return False
    in_body = body is not model and any(module is m for m in body.modules())
    return not in_body or any(p.ndim > 1 for p in module.parameters())  # a pooler has a matrix, a final norm has none


def _filled(model: nn.Module, name: str, missing: set[str]) -> bool:
    """Whether a stored weight filled a parameter of the module that it does not share with another one."""
    own = {f"{name}.{p}" for p, _ in model.get_submodule(name).named_parameters()}
    return bool((own & {n for n, _ in model.named_parameters()}) - missing)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _largest(model: nn.Module, parameter: str, missing: set[str]) -> str:
    name = parameter.rpartition(".")[0]
    while "." in name and not _filled(model, name.rpartition(".")[0], missing):
        name = name.rpartition(".")[0]
    return name
