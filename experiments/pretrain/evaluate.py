"""Measures the shipped backbones on text that their pretraining never saw: `python evaluate.py`.

Each figure stands beside what costs nothing: unigram frequencies of the training tokens, and the same network untrained.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterable
from pathlib import Path

import torch
from bert_data import IGNORE, batches, pairs, tokenized
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BertForPreTraining, LlamaForCausalLM

from ftlab.data.sources.python_docs import Part, PythonDocs

HERE = Path(__file__).parent
THREADS = 2
ASSETS = HERE.parent.parent / "ftlab" / "assets"
TEXTS: dict[str, tuple[Part, tuple[str, ...]]] = {
    "pretraining, validation": ("pretraining", ("validation",)),
    "held-out packages": ("held-out", ("train", "validation")),
}


def passages(part: Part, splits: Iterable[str]) -> list[str]:
    """The passages of some splits."""
    source = PythonDocs(part=part)
    return [str(row["text"]) for split in splits for row in source.rows(split)]


def unigram(training: Iterable[list[int]], vocabulary: int) -> torch.Tensor:
    """Log-probability of each token by its frequency in the training text, with one added to every count."""
    counts = torch.ones(vocabulary)
    for ids in training:
        counts += torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=vocabulary)
    return (counts / counts.sum()).log()


def llama_loss(model: LlamaForCausalLM, rows: list[list[int]], start: int) -> float:
    """Summed loss (nats) of all tokens; every window of the context's length begins with the start token."""
    room, total = model.config.max_position_embeddings - 1, 0.0
    for ids in rows:
        for i in range(0, len(ids), room):
            window = torch.tensor([[start, *ids[i : i + room]]])
            total += float(F.cross_entropy(model(window).logits[0, :-1].float(), window[0, 1:], reduction="sum"))
    return total


def report_llama(folder: Path) -> None:
    """Rows of the Llama's table."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    models = {"trained": AutoModelForCausalLM.from_pretrained(folder), "random weights": AutoModelForCausalLM.from_config(config)}

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    frequencies = unigram(encode(passages("pretraining", ["train"])), config.vocab_size)
    print("| text | tokens | model | nats / token | perplexity | nats / byte |\n|---|---|---|---|---|---|")
    for name, (part, splits) in TEXTS.items():
        texts = passages(part, splits)
        rows, size = encode(texts), sum(len(text.encode()) for text in texts)
        count = sum(map(len, rows))
        sums = {kind: llama_loss(model.eval(), rows, tokenizer.bos_token_id) for kind, model in models.items()}
        sums["unigram"] = -sum(float(frequencies[torch.tensor(ids)].sum()) for ids in rows)
        for kind, total in sums.items():
            loss = total / count
            print(f"| {name} | {count} | {kind} | {loss:.3f} | {math.exp(loss):.1f} | {total / size:.3f} |")


def report_bert(folder: Path, length: int = 128) -> None:
    """Rows of the BERT's table."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    models = {"trained": BertForPreTraining.from_pretrained(folder), "random weights": BertForPreTraining(config)}
    training = tokenized(tokenizer, "pretraining", "train")
    frequencies = unigram((unit for units in training for unit in units), config.vocab_size)
    print("| text | masked | pairs | model | MLM, nats | MLM accuracy | NSP, nats | NSP accuracy |\n|---|---|---|---|---|---|---|---|")
    for name, (part, splits) in TEXTS.items():
        corpus = [units for split in splits for units in tokenized(tokenizer, part, split)]
        # Several passes, each with pairs and masks of its own: one pass over the validation text is few pairs.
        dice, masks = random.Random(1), torch.Generator().manual_seed(1)
        drawn = [batch for _ in range(4) for batch in batches(pairs(corpus, length - 3, dice), 64, tokenizer, masks)]
        labels = torch.cat([batch["labels"][batch["labels"] != IGNORE] for batch in drawn])
        orders = torch.cat([batch["next_sentence_label"] for batch in drawn])
        for kind, model in models.items():
            outputs = [_bert_logits(model.eval(), batch) for batch in drawn]
            words, order = (torch.cat(parts) for parts in zip(*outputs, strict=True))
            figures = [F.cross_entropy(words, labels), _share(words, labels), F.cross_entropy(order, orders), _share(order, orders)]
            print(f"| {name} | {len(labels)} | {len(orders)} | {kind} | " + " | ".join(f"{float(x):.3f}" for x in figures) + " |")
        common = max(float(orders.float().mean()), 1 - float(orders.float().mean()))
        best = (labels == frequencies.argmax()).float().mean()
        figures = [-frequencies[labels].mean(), best, torch.tensor(math.log(2)), torch.tensor(common)]
        print(f"| {name} | {len(labels)} | {len(orders)} | unigram, majority | " + " | ".join(f"{float(x):.3f}" for x in figures) + " |")


def _bert_logits(model: BertForPreTraining, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    states, pooled = model.bert(**inputs, return_dict=False)[:2]
    return model.cls.predictions(states[batch["labels"] != IGNORE]), model.cls.seq_relationship(pooled)


def _share(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.argmax(-1) == labels).float().mean()


@torch.no_grad()
def main() -> None:
    """Print a table for each backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=ASSETS, help="the folder that holds tiny-llama and tiny-bert")
    assets = parser.parse_args().assets
    torch.set_num_threads(THREADS)
    for name, report in (("tiny-llama", report_llama), ("tiny-bert", report_bert)):
        if (assets / name).is_dir():
            torch.manual_seed(0)
            print(f"\n{name}\n")
            report(assets / name)


if __name__ == "__main__":
    main()
