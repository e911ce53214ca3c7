"""Writing the result of a run so that it opens without ftlab, and proving that it is the same model."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

import ftlab
from ftlab import parity
from ftlab.adapters import CONFIG, starts_in_base
from ftlab.errors import CheckpointError, ConfigError
from ftlab.folders import check_target, published, write_record
from ftlab.growth import GrownEmbedding
from ftlab.model_card import Facts, card
from ftlab.opening import is_adapter, is_native, open_folder
from ftlab.saving import cast_files, save_whole
from ftlab.strategies.base import Placement

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16", "float16"]
Sample = list[Mapping[str, Tensor]]
_NATIVE = 'import ftlab\n\nmodel, tokenizer = ftlab.load("this folder")\n'


def export_run(module: FinetuneModule, folder: Path, facts: Facts) -> bool:
    """Write what a fit has trained, in its strategy's own format; for the end of a fit, on its first rank; nothing is loaded a second time.

    Args:
        module: The fitted module; as before when this returns.
        folder: Where to; absent or empty.
        facts: For the model card.

    Returns:
        Whether there was anything that could be written: an adapter on random weights has no base to go with.
    """
    if base_is_lost(module):
        log.warning("no export: the adapter belongs to the random weights of model.backbone.fresh, which are not stored")
        return False
    with published(folder) as work:
        _write(module, work, facts, merge=False, dtype=None)
    return True


def export(
    module: FinetuneModule, folder: Path, facts: Facts, sample: Sample, *, merge: bool = False, dtype: Dtype | None = None
) -> parity.Parity:
    """Write a model, open it again without ftlab's layers, and compare the two before the folder gets its name.

    Args:
        module: The trained module, on the CPU; as before when this returns.
        folder: Where to; absent or empty.
        facts: For the model card.
        sample: Inputs of the model to compare on.
        merge: Fold the adaptation into the base, reloaded in its own type.
        dtype: Type of the written weights; None keeps that of the trained tensors, or of the base where they are merged.

    Returns:
        How the written model differs from the trained one.

    Raises:
        CheckpointError: By more than the tolerance; nothing is left behind.
        ConfigError: The folder holds something, or the base cannot be had again.
        NotMergeableError: The strategy has no merged form.
    """
    check_target(folder)
    if base_is_lost(module):
        raise ConfigError("model.backbone.fresh is true, and the frozen random weights are stored nowhere; export a model that has a base.")
    expected = parity.logits_of(module.adapted, sample)
    with published(folder) as work:
        _write(module, work, facts, merge=merge, dtype=dtype)
        options = module.tuning.load_options(Placement(device=torch.device("cpu"), precision="32-true"))
        opened = open_folder(work, options=options)
        found = parity.compare(expected, parity.logits_of(opened, sample), _rows(sample), _tolerance(module.adapted, opened, merge, dtype))
        if not found.holds:
            raise CheckpointError(f"the exported model is not the trained one: {found}; nothing was left in {folder}.")
    return found


def base_is_lost(module: FinetuneModule) -> bool:
    """Whether the run stands on random weights that it does not hold itself."""
    names = {name for name, _ in module.adapted.named_parameters(remove_duplicate=False)}
    return module.backbone.fresh and not names <= module.tuning.owned(module.adapted)


def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model's tensors the values of `tensors`, and their type."""
    state = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].data = state[name].data.to(value.dtype)
            state[name].copy_(value)


def _write(module: FinetuneModule, work: Path, facts: Facts, *, merge: bool, dtype: Dtype | None) -> None:
    if merge:
        save_whole(_merged(module, dtype), work)
    else:
        module.tuning.save(module.adapted, work)
    if dtype is not None:
        cast_files(work, getattr(torch, dtype))
    module.tokenizer.save_pretrained(work)
    if (work / CONFIG).is_file():
        _name_base(work, module)
    record = _record(module, is_adapter(work))
    opening = _NATIVE if is_native(work) else _opening(record, is_adapter(work))
    text = card(facts, module.backbone.name, opening, is_adapter(work))
    (work / "README.md").write_text(text, encoding="utf-8")
    write_record(work, record)


def _merged(module: FinetuneModule, dtype: Dtype | None) -> nn.Module:
    """The model with the adaptation folded into the base as it is stored."""
    from ftlab.module import FinetuneModule

    backbone = module.backbone if module.backbone.fresh else replace(module.backbone, dtype=dtype or "auto")
    other = FinetuneModule(backbone, module.task, module.tuning)
    with torch.random.fork_rng(devices=[]):
        other.configure_model()
    model = other.adapted
    own: torch.dtype = model.dtype if dtype is None else getattr(torch, dtype)  # type: ignore[assignment]
    owned = module.tuning.owned(module.adapted)
    put(model, {name: t.cpu() for name, t in module.adapted.state_dict().items() if name in owned})
    return module.tuning.merge(model).to(own)


def _name_base(work: Path, module: FinetuneModule) -> None:
    path = work / CONFIG
    entries = json.loads(path.read_text(encoding="utf-8"))
    entries |= {"base_model_name_or_path": module.backbone.name, "revision": module.backbone.revision}
    path.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _record(module: FinetuneModule, adapter: bool) -> dict[str, object]:
    """What is needed to open the folder again."""
    backbone, embedding = module.backbone, module.adapted.get_input_embeddings()  # type: ignore[operator]
    facts: dict[str, object] = {"ftlab": ftlab.__version__, "auto_class": module.task.auto_class}
    if adapter:
        grown = isinstance(embedding, GrownEmbedding) and embedding.first + len(embedding.new.weight) > len(embedding.base.weight)
        facts |= {
            "base": {"name": backbone.name, "revision": backbone.revision, "dtype": backbone.dtype, "attention": backbone.attention},
            "model_options": module.task.model_options(),
            "pad_token_id": module.tokenizer.pad_token_id,
            "new_tokens": backbone.new_tokens,
            "embedding_rows": embedding.first + len(embedding.new.weight) if grown else None,
        }
    return facts


def _opening(record: Mapping[str, object], adapter: bool) -> str:
    """Lines of Python that open the folder."""
    kind = record["auto_class"]
    imports = f"from transformers import {kind}, AutoTokenizer\n\n"
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("this folder")\n'
    if not adapter:
        return f'{imports}model = {kind}.from_pretrained("this folder")\n{tokenizer}'
    base = record["base"]
    options = record["model_options"]
    assert isinstance(base, dict)
    assert isinstance(options, dict)
    given = {"revision": base["revision"], "dtype": base["dtype"], **options}
    words = "".join(f", {key}={value!r}" for key, value in given.items() if value is not None)
    rows = record["embedding_rows"]
    lines = [f"base = {kind}.from_pretrained({base['name']!r}{words})", f"base.config.pad_token_id = {record['pad_token_id']}"]
    if base["name"].startswith("ftlab/"):
        lines.insert(0, f"# {base['name']} is the folder assets/{base['name'].removeprefix('ftlab/')} of the package ftlab")
    if rows is not None:
        lines.append(f"base.resize_token_embeddings({rows}, mean_resizing=False)")
    lines.append('model = PeftModel.from_pretrained(base, "this folder").eval()')
    return "from peft import PeftModel\n" + imports + "\n".join(lines) + "\n" + tokenizer


def _rows(sample: Sample) -> int:
    return sum(len(inputs["input_ids"]) for inputs in sample)


def _tolerance(trained: nn.Module, opened: nn.Module, merge: bool, dtype: Dtype | None) -> float:
    written = [] if dtype is None else [getattr(torch, dtype)]  # PEFT opens an adapter of any type in float32
    kinds = {*written, *(p.dtype for m in (trained, opened) for p in m.parameters() if p.is_floating_point())}
    least = max(kinds, key=lambda kind: torch.finfo(kind).eps)
    return parity.tolerance(least, merge or starts_in_base(trained))
