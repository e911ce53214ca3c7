"""Writing the result of a run so that it opens without ftlab, and proving that it is the same model."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

import ftlab
from ftlab import merging, parity
from ftlab.adapters import CONFIG, starts_in_base
from ftlab.errors import CheckpointError, ConfigError
from ftlab.folders import check_target, published, write_record
from ftlab.growth import GrownEmbedding
from ftlab.merging import Sample
from ftlab.merging import put as put
from ftlab.model_card import Facts, card
from ftlab.opening import is_adapter, is_native, open_folder
from ftlab.quantised import quantised_maps, settings_of
from ftlab.saving import cast_files, save_whole

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16", "float16"]
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
        _write(module, work, facts, None, None)
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
        CheckpointError: By more than the tolerance; nothing is left behind but a merged model, as `<folder>-differs`.
        ConfigError: The folder holds something, or the base cannot be had again.
        NotMergeableError: The strategy has no merged form.
    """
    check_target(folder)
    if base_is_lost(module):
        raise ConfigError("model.backbone.fresh is true, and the frozen random weights are stored nowhere; export a model that has a base.")
    expected = parity.logits_of(module.adapted, sample)
    with published(folder) as work:
        made = merging.merged(module, sample, None if dtype is None else getattr(torch, dtype)) if merge else None
        _write(module, work, facts, made, dtype)
        opened = open_folder(work)
        found = parity.compare(expected, parity.logits_of(opened, sample), merging.rows_of(sample), 0.0)
        found = replace(found, tolerance=_tolerance(module.adapted, opened, made, dtype))
        if made is not None:
            _check_merged(made.parity, found, work, folder)
        elif not found.holds:
            raise CheckpointError(f"the exported model is not the trained one: {found}; nothing was left in {folder}.")
    return found


def _check_merged(inner: merging.MergeParity, found: parity.Parity, work: Path, folder: Path) -> None:
    """Keep a merged model that is another one than the trained under a name that says so."""
    log.info("%s", inner)
    if inner.holds and found.holds:
        return
    kept = folder.with_name(f"{folder.name}-differs")
    check_target(kept)
    work.replace(kept)
    raise CheckpointError(
        f"the merged model is not the trained one: {found}; {inner}; it is kept in {kept}: use the adapter, which the run's export/ has."
    )


def base_is_lost(module: FinetuneModule) -> bool:
    """Whether the run stands on random weights that it does not hold itself."""
    names = {name for name, _ in module.adapted.named_parameters(remove_duplicate=False)}
    return module.backbone.fresh and not names <= module.tuning.owned(module.adapted)


def _write(module: FinetuneModule, work: Path, facts: Facts, made: merging.Merged | None, dtype: Dtype | None) -> None:
    if made is not None:
        save_whole(made.model, work)
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
    module.task.complete_export(work)
    write_record(work, record)


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
            "base": {
                "name": backbone.name,
                "revision": backbone.revision,
                "dtype": backbone.dtype,
                "attention": backbone.attention,
                "fingerprint": None if settings_of(module.adapted) else module._base,
            },
            "model_options": module.task.model_options(),
            "pad_token_id": module.tokenizer.pad_token_id,
            "new_tokens": backbone.new_tokens,
            "quantisation": settings_of(module.adapted),
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
    quantisation = record["quantisation"]
    if isinstance(quantisation, dict):
        kind_of = ", ".join(f"{key}={value!r}" for key, value in quantisation.items())
        imports = f"from transformers import {kind}, AutoTokenizer, BitsAndBytesConfig\n\n"
        words += f", quantization_config=BitsAndBytesConfig({kind_of})"
    rows = record["embedding_rows"]
    lines = [f"base = {kind}.from_pretrained({base['name']!r}{words})", f"base.config.pad_token_id = {record['pad_token_id']}"]
    if base["name"].startswith("ftlab/"):
        lines.insert(0, f"# {base['name']} is the folder assets/{base['name'].removeprefix('ftlab/')} of the package ftlab")
    if rows is not None:
        lines.append(f"base.resize_token_embeddings({rows}, mean_resizing=False)")
    lines.append('model = PeftModel.from_pretrained(base, "this folder").eval()')
    return "from peft import PeftModel\n" + imports + "\n".join(lines) + "\n" + tokenizer


def _tolerance(trained: nn.Module, opened: nn.Module, made: merging.Merged | None, dtype: Dtype | None) -> float:
    if made is not None and made.parity.requantised is not None:
        return made.parity.merged.tolerance
    written = [] if dtype is None else [getattr(torch, dtype)]  # PEFT opens an adapter of any type in float32
    computed = [m.compute_dtype for m in quantised_maps(trained).values() if hasattr(m, "compute_dtype")]
    kinds = {*written, *computed, *(p.dtype for m in (trained, opened) for p in m.parameters() if p.is_floating_point())}
    least = max(kinds, key=lambda kind: torch.finfo(kind).eps)
    return parity.tolerance(least, made is not None or starts_in_base(trained))
