"""Writes docs/reference/peft.md: runs every bridged method beside plain PEFT and says what came out.

`python -m tests.reference.peft_table` from the root of the repository; a minute on one core.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

from ftlab.backbone import Backbone
from ftlab.strategies.base import NotMergeableError
from ftlab.strategies.peft_bridge import Peft
from ftlab.strategies.peft_options import _APART, _INSTEAD
from tests.reference import test_peft_bridge as bridge
from tests.reference import test_peft_data as data
from tests.reference.peft_cases import CASES, VARIANTS, Case

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "peft.md"
NEEDS = {
    "ADALORA": "the run's length, importances and ranks after every step, an orthogonality loss",
    "ADAMSS": "importances and pruning after every step (`use_asa`)",
    "LORA, CorDA": "batches before the first step",
    "LORA, EVA": "batches before the first step",
    "LORA, KaSA": "two losses",
    "LORA, LoRA-GA": "batches and their gradients before the first step",
    "LORA, LoftQ": "a GPU while it is made",
    "LORA, MonteCLoRA": "a variational loss",
    "POLY": "the number of the task with every batch",
}
HEAD = """# Methods of PEFT

`Peft` takes any method of PEFT that adapts by injected layers, by PEFT's name and fields:

```yaml
tuning:
  class_path: Peft
  init_args:
    method: ADALORA
    options: {init_r: 12, target_r: 8, tinit: 200, tfinal: 500, target_modules: all-linear}
```

The table is made by `python -m tests.reference.peft_table`, with the options of `tests/reference/peft_cases.py` on a tiny Llama and a
tiny Bert classifier. *Needs* is what a method asks of the training loop beyond a loss and an optimiser. *As PEFT* is the largest relative
difference of the loss in five optimiser steps between ftlab and PEFT driven by hand as its documentation says, needs and all. *Merges*
and *plain PEFT* compare the outputs of the merged model, and of the export opened by PEFT alone, with those of the trained model.
*Trained* counts the parameters on `ftlab/tiny-llama`.

| method | needs from the loop | as PEFT | encoder | merges | plain PEFT | trained |
|---|---|---|---|---|---|---|
"""
FOOT = """
LoftQ is computed by PEFT on a GPU only. Its exports, and those of Poly, are in ftlab's own format: plain PEFT would put them on a base that
LoftQ has not changed, or ask for the number of a task. MonteCLoRA draws its noise in advance, which a resumed run draws anew. EVA keeps
the same rank in every layer (`eva_config: {rho: 1.0}`), because a rank that depends on data would not fit its own checkpoint. What PiSSA,
OLoRA, CorDA and LoRA-GA take out of the base weights in PEFT is subtracted from the layer's output here, so the base stays as it was.
AdaLoRA and AdaMSS score whole tensors, so they do not run where FSDP cuts them. IA3 and `Peft` are not composed with a method of PEFT
that comes before them, because PEFT has one configuration for a model.

"""


@dataclass(frozen=True)
class Row:
    """What was found for one method."""

    steps: float
    encoder: bool
    merges: bool
    opens: bool
    trained: int

    def text(self, name: str) -> str:
        found = [f"{self.steps:.0e}" if self.steps else "0", *("yes" if v else "no" for v in (self.encoder, self.merges, self.opens))]
        cells = [name, NEEDS.get(name, "nothing"), *(found if self.trained else ["not run", "–", "–", "–"])]
        return "| " + " | ".join([*cells, f"{self.trained:,}" if self.trained else "–"]) + " |\n"


def largest(some: list[float], other: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(some, other, strict=True))


def trained_of(case: Case) -> int:
    model = Backbone(name="ftlab/tiny-llama").load_model("AutoModelForCausalLM", {}, {})[0]
    adapted = Peft(method=case.method, options=case.on(False)).apply(model, {})
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def measure(case: Case, encoder: bool) -> tuple[float, bool, bool]:
    """Largest difference of the losses, whether it merges, whether plain PEFT opens it."""
    strategy, mine = bridge.by_ftlab(case, encoder)
    theirs, given = bridge.by_peft(case, encoder), bridge.batch(encoder)
    bridge.spread(mine)
    bridge.spread(theirs)
    off = largest(bridge.steps_of_ftlab(strategy, mine.train(), given), bridge.steps_of_peft(case, theirs.train(), given))
    return (off, *folder_and_merge(strategy, mine, case, encoder))


def measure_data(case: Case) -> tuple[float, bool, bool]:
    given, init = data.rows(), str(case.options["init_lora_weights"])
    with patch("torch.svd_lowrank", data.exact_svd):
        strategy, mine = data.by_ftlab(init, given)
        theirs = data.by_hand(init, given)
    off = largest(bridge.steps_of_ftlab(strategy, mine, given), bridge.steps_of_peft(case, theirs.train(), given))
    return (off, *folder_and_merge(strategy, mine, case, False))


def folder_and_merge(strategy: Peft, model: torch.nn.Module, case: Case, encoder: bool) -> tuple[bool, bool]:
    with tempfile.TemporaryDirectory() as folder:
        opens = bridge.opens_again(strategy, model, case, encoder, Path(folder) / "export")
    expected = bridge.logits(model)
    try:
        merges = bridge.close(bridge.logits(strategy.merge(model)), expected, 1e-5)
    except NotMergeableError:
        merges = False
    return merges, opens


def row(case: Case) -> Row:
    init = case.options.get("init_lora_weights")
    if init == "loftq" and not torch.cuda.is_available():
        return Row(0.0, True, True, False, 0)
    run: Callable[[Case], tuple[float, bool, bool]] = measure_data if init in data.CASES else lambda c: measure(c, False)
    off, merges, opens = run(case)
    if case.encoder and init not in data.CASES:
        off, merges_too, _ = (
            max(a, b) if isinstance(a, float) else b for a, b in zip((off, merges, opens), measure(case, True), strict=True)
        )
        merges = merges or bool(merges_too)
    return Row(float(off), case.encoder, bool(merges), opens, trained_of(case))


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        bridge.load_bases(Path(folder))
        rows = [row(case).text(str(case)) for case in (*CASES, *VARIANTS)]
    others = [f"- `{name}`: use `{instead}`.\n" for name, instead in _INSTEAD.items()]
    apart = [f"- `{name}`: it {reason}.\n" for name, reason in _APART.items()]
    PAGE.write_text(
        HEAD + "".join(rows) + FOOT + "Not taken, because they inject no layers:\n\n" + "".join(others + apart), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
