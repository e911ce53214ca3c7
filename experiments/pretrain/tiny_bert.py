"""Pretrains the shipped BERT: masked tokens and next-sentence prediction (Devlin et al. 2019): `python tiny_bert.py ASSET_FOLDER`.

Pairs and masks are drawn anew in every epoch. The same Python, torch and number of threads give the same weights.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from bert_data import IGNORE, Units, batches, pairs, tokenized
from publish import publish
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, BertConfig, BertForPreTraining, PreTrainedTokenizerBase

HERE = Path(__file__).parent
SEED = 0
THREADS = 2
STEPS = 2600
# As in the paper, the last tenth of the steps has the full length, for the sake of its positions; tokens a step stay the same.
SHORT, LONG, LONG_FROM = 128, 256, 0.9
TOKENS = 4096
PEAK, WARMUP, DECAY, CLIP = 1.5e-3, 0.1, 0.01, 1.0


def losses(model: BertForPreTraining, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean loss of the masked tokens and of the pairs; the vocabulary is only computed where something is masked."""
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    states, pooled = model.bert(**inputs, return_dict=False)[:2]
    keep = batch["labels"] != IGNORE
    tokens = F.cross_entropy(model.cls.predictions(states[keep]), batch["labels"][keep])
    return tokens, F.cross_entropy(model.cls.seq_relationship(pooled), batch["next_sentence_label"])


def stream(corpus: list[Units], tokenizer: PreTrainedTokenizerBase) -> Iterator[dict[str, Tensor]]:
    """Training batches without end, short ones first."""
    dice, masks = random.Random(SEED), torch.Generator().manual_seed(SEED)
    step = 0
    while True:
        length = SHORT if step < LONG_FROM * STEPS else LONG
        found = pairs(corpus, length - 3, dice)
        dice.shuffle(found)
        for batch in batches(found, TOKENS // length, tokenizer, masks):
            yield batch
            step += 1
            if length == SHORT and step >= LONG_FROM * STEPS:
                break


def optimiser(model: BertForPreTraining) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW without decay on biases and norms; linear warm-up, then linear decay to zero."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.98), eps=1e-6)
    rise = WARMUP * STEPS
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda step: min((step + 1) / rise, (STEPS - step) / (STEPS - rise)))


def train(model: BertForPreTraining, tokenizer: PreTrainedTokenizerBase) -> None:
    """Train in place."""
    adam, schedule = optimiser(model)
    started, sums = time.monotonic(), torch.zeros(2)
    data = stream(tokenized(tokenizer, "pretraining", "train"), tokenizer)
    for step, batch in zip(range(1, STEPS + 1), data, strict=False):
        tokens, order = losses(model, batch)
        (tokens + order).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        adam.zero_grad()
        schedule.step()
        sums += torch.stack([tokens, order]).detach()
        if step % 100 == 0:
            mlm, nsp = (sums / 100).tolist()
            print(f"step {step}  mlm {mlm:.3f}  nsp {nsp:.3f}  {time.monotonic() - started:.0f} s", flush=True)
            sums.zero_()


def main(out: Path) -> None:
    """Train from random weights and publish."""
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    tokenizer = AutoTokenizer.from_pretrained(HERE / "tiny_bert")
    config = BertConfig.from_pretrained(HERE / "tiny_bert")
    model = BertForPreTraining(config)
    # In eval mode dropout is off: so short a training underfits as it is. Fine-tuning gets the usual 0.1 from the configuration.
    model.eval()
    train(model, tokenizer)
    publish(model, tokenizer, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
