"""The contestants of overhead.py other than ftlab; one of them per process: python contestants.py NAME WORKLOAD FOLDER."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from workload import ALPHA, CLIP, RANK, RATE, SEED, TARGETS, WORKLOADS, Recorder, Workload, seed_adapter


def base(folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    return model.train()


def with_ftlab(model: nn.Module) -> nn.Module:
    from ftlab.strategies.lora import LoRA

    return LoRA(r=RANK, alpha=ALPHA, target_modules=TARGETS).apply(model, {})


def peft_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")


def with_peft(model: nn.Module) -> nn.Module:
    from peft import get_peft_model

    model.requires_grad_(False)
    return get_peft_model(model, peft_config()).base_model.model


def loss_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Token ids (B, T) → the mean loss, by ftlab's kernel."""
    from ftlab.tasks.cross_entropy import cross_entropy_sum
    from ftlab.tasks.lm_head import language_head

    head = language_head(model)
    assert head is not None

    def loss(ids: Tensor) -> Tensor:
        hidden = head.body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        labels = ids[:, 1:].flatten()
        return cross_entropy_sum(hidden.flatten(0, 1), labels, head.project, head.linear, head.vocabulary) / len(labels)

    return loss


def hand(load: Workload, folder: Path, recorder: Recorder, fused: bool = True, dtype: torch.dtype = torch.float32) -> None:
    """The loop that one would write by hand, with ftlab's loss and, where `fused`, its LoRA layers; no data loader, no logging."""
    model = (with_ftlab if fused else with_peft)(base(folder, dtype))
    seed_adapter(model)
    rows = torch.from_numpy(np.load(folder / "rows.npy"))
    mean_loss = loss_of(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, fused=True)

    def step(ids: Tensor) -> Tensor:
        loss = mean_loss(ids)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for ids in rows.split(load.batch):
        recorder.loss(step(ids))
        recorder.step()


def lightning(load: Workload, folder: Path, recorder: Recorder) -> None:
    """The same loop as a LightningModule with nothing but a loss, torch's loader, and a line of CSV every ten steps."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger

    class Plain(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = with_ftlab(base(folder))
            seed_adapter(self.model)
            self.mean_loss = loss_of(self.model)

        def training_step(self, ids: Tensor) -> Tensor:
            loss = self.mean_loss(ids)
            recorder.loss(loss)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=RATE, fused=True)

        def on_train_batch_end(self, *_: object) -> None:
            recorder.step()

    rows = torch.from_numpy(np.load(folder / "rows.npy"))
    loader = torch.utils.data.DataLoader(rows, batch_size=load.batch)  # type: ignore[arg-type]  # a tensor is a data set of its rows
    trainer = Trainer(
        max_steps=load.steps, accelerator="cpu", gradient_clip_val=CLIP, log_every_n_steps=10, logger=CSVLogger(folder / "csv"),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Plain(), loader)


def settings(load: Workload, folder: Path) -> dict[str, Any]:
    """What HF Trainer and TRL are told; every other setting is their default."""
    return {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": load.batch, "max_steps": load.steps, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "weight_decay": 0.01, "max_grad_norm": CLIP, "optim": "adamw_torch_fused", "logging_steps": 10,
        "report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "seed": SEED,
        "train_sampling_strategy": "sequential", "disable_tqdm": True,
    }  # fmt: skip


def recorded(kind: type, recorder: Recorder) -> tuple[type, Any]:
    """A trainer that notes its losses, and the callback that notes the time."""
    from transformers import TrainerCallback

    class Recorded(kind):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            result = super().compute_loss(*args, **kwargs)
            recorder.loss(result[0] if isinstance(result, tuple) else result)
            return result

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            recorder.step()

    return Recorded, Clock()


def hf_trainer(load: Workload, folder: Path, recorder: Recorder) -> None:
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import Trainer, TrainingArguments, default_data_collator

    rows = np.load(folder / "rows.npy").tolist()
    model = get_peft_model(base(folder), peft_config())
    seed_adapter(model)
    kind, clock = recorded(Trainer, recorder)
    trainer = kind(
        model=model, args=TrainingArguments(**settings(load, folder)), data_collator=default_data_collator, callbacks=[clock],
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
    )  # fmt: skip
    trainer.train()


def trl(load: Workload, folder: Path, recorder: Recorder) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    kind, clock = recorded(SFTTrainer, recorder)
    trainer = kind(
        model=base(folder), args=SFTConfig(**settings(load, folder), max_length=load.tokens), peft_config=peft_config(), callbacks=[clock],
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        train_dataset=Dataset.from_dict({"input_ids": np.load(folder / "rows.npy").tolist()}),
    )  # fmt: skip
    seed_adapter(trainer.model)
    trainer.train()


def main(name: str, workload: str, folder: Path) -> None:
    load, recorder = WORKLOADS[workload], Recorder()
    if name == "hf":
        hf_trainer(load, folder, recorder)
    elif name == "lightning":
        lightning(load, folder, recorder)
    elif name == "trl":
        trl(load, folder, recorder)
    else:
        dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
        hand(load, folder, recorder, fused=not name.startswith("hand-peft"), dtype=dtype)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
