"""Masked language modelling: tokens per CPU second of ftlab and of HF's recipe on the same batches, and the tokens that padding wastes.

    python experiments/benchmarks/mlm.py [--repeats 3]

HF's recipe is that of its `run_mlm` example: Trainer, and the collator that masks 15 % of the tokens of blocks cut from joined text. Both
train all of tiny-bert on blocks of 128 tokens of WikiText-2, in ftlab's order; each draws its own masks. Processes and turns are
those of overhead.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from overhead import repeat
from torch import Tensor, nn
from workload import CLIP, RATE, SEED, Recorder, Workload

from ftlab import Batch, TuningStrategy
from ftlab.backbone import ASSETS, Backbone
from ftlab.data.order import epoch_batches
from ftlab.data.sources.documents import Documents
from ftlab.strategies.full import Full
from ftlab.tasks.base import Task
from ftlab.tasks.masked_lm import MaskedLM

LOAD = Workload(2, 128, 2, 512, 3072, 128, warmup=5, turn=2, turns=20, batch=32)
TEXT = Path(os.environ.get("FTLAB_DATA", "../shared/data"), "wikitext-2", "valid.txt").resolve()
NAME = "ftlab/tiny-bert"
EPOCHS = 9
recorder: list[Recorder] = []


@dataclass(frozen=True, kw_only=True)
class TimedFull(TuningStrategy):
    """Full fine-tuning with a clock; this file is a plugin, too."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        recorder.append(Recorder())
        return Full().apply(model, heads)

    def extra_losses(self, model: nn.Module, outputs: object, batch: Batch) -> dict[str, Tensor]:
        recorder[0].loss(outputs.sums["mlm"], outputs.counts["mlm"])  # type: ignore[attr-defined]
        return {}

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        recorder[0].step()


def ordered(task: Task, epochs: int = 1) -> list[list[list[int]]]:
    """The blocks of every batch in ftlab's order, before any mask is drawn."""
    source = Documents(path=str(TEXT), layout="wikitext")
    rows, tokenizer = enumerate(source.rows("train")), Backbone(name=NAME).load_tokenizer()
    blocks = [e["input_ids"] for e in task.encode(rows, tokenizer, LOAD.tokens, labelled=True)]
    lengths = np.array([len(block) for block in blocks])
    every = [epoch_batches(lengths, LOAD.batch, seed=SEED, epoch=epoch, shuffle=True, group=True) for epoch in range(epochs)]
    return [[blocks[i] for i in batch] for batches in every for batch in batches]


def prepare(folder: Path) -> None:
    """What HF's trainer is given."""
    rows = [block for batch in ordered(MaskedLM(block_size=LOAD.tokens), epochs=EPOCHS) for block in batch]
    (folder / "rows.json").write_text(json.dumps(rows[: LOAD.batch * LOAD.steps]), encoding="utf-8")


def waste(task: Task) -> float:
    """Share of an epoch's positions that hold padding."""
    batches = ordered(task)
    held = sum(len(batch) * max(map(len, batch)) for batch in batches)
    return 1 - sum(len(block) for batch in batches for block in batch) / held


def command(name: str, folder: Path) -> list[str]:
    if name == "hf":
        return [sys.executable, __file__, "--contestant", str(folder)]
    settings: dict[str, Any] = {
        "seed_everything": SEED, "run.root": folder / "runs", "model.backbone.name": NAME, "model.task": "MaskedLM",
        "model.task.block_size": LOAD.tokens, "model.tuning": "TimedFull", "model.optimizer": "torch.optim.AdamW",
        "model.optimizer.lr": RATE, "model.schedule.decay": "constant", "model.schedule.warmup": 0, "data.source": "Documents",
        "data.source.path": TEXT, "data.source.layout": "wikitext", "data.val_split": "null", "data.batch_size": LOAD.batch,
        "trainer.max_steps": LOAD.steps, "trainer.max_epochs": EPOCHS, "trainer.gradient_clip_val": CLIP, "trainer.accelerator": "cpu",
    }  # fmt: skip
    words = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
    return [sys.executable, "-m", "ftlab", "fit", "--plugin", __file__, *words]


def hf(folder: Path) -> None:
    """The recipe of `run_mlm`."""
    from contestants import recorded, settings
    from datasets import Dataset
    from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling, Trainer, TrainingArguments

    kind, clock = recorded(Trainer, Recorder())
    trainer = kind(
        model=AutoModelForMaskedLM.from_pretrained(ASSETS / "tiny-bert").train(), args=TrainingArguments(**settings(LOAD, folder)),
        data_collator=DataCollatorForLanguageModeling(Backbone(name=NAME).load_tokenizer(), mlm_probability=0.15), callbacks=[clock],
        train_dataset=Dataset.from_dict({"input_ids": json.loads((folder / "rows.json").read_text(encoding="utf-8"))}),
    )  # fmt: skip
    trainer.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contestant", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        hf(options.contestant)
        return
    print(f"padding: {100 * waste(MaskedLM(block_size=LOAD.tokens)):.2f} % in blocks across rows, "
          f"{100 * waste(MaskedLM(block_size=LOAD.tokens, cross_documents=False)):.2f} % in rows grouped by length")  # fmt: skip
    seconds: dict[str, list[float]] = {"hf": [], "ftlab": []}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for _ in range(options.repeats):
            for name, found in repeat({name: command(name, Path(folder)) for name in seconds}, LOAD, Path(folder)).items():
                seconds[name] += [turn / LOAD.turn for turn in found["seconds"]]
                print(f"{name}: loss {found['losses'][0]:.3f} -> {statistics.mean(found['losses'][-10:]):.3f}")
    for name, found in seconds.items():
        middle = statistics.median(found)
        print(f"{name}: {LOAD.batch * LOAD.tokens / middle:,.0f} tokens per CPU second, {1e3 * middle:.1f} ms a step")
    ratios = statistics.quantiles([h / s for h, s in zip(seconds["hf"], seconds["ftlab"], strict=True)], n=4)
    print(f"ftlab : hf = {ratios[1]:.3f} ({ratios[0]:.3f} - {ratios[2]:.3f})")


if __name__ == "__main__":
    main()
