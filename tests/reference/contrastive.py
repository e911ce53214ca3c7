"""A hand-written contrastive loss over whole batches of pairs, with nothing of ftlab between the model and `backward`.

Kept as the second implementation that `test_contrastive.py` compares ftlab's ranks with. Run it alone to see the figures.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

PAIRS = [
    ("when is the train", "the train leaves at nine"),
    ("who wrote it", "a list of all the authors of the report and of those who helped them"),
    ("is it open", "open on weekdays"),
    ("where do I find my card", "cards are sent by post within a week and a half, so look there"),
    ("is the museum open today", "open on weekdays"),
    ("why", "because"),
    ("who wrote it", "she did"),
]
"""Two pairs have the same second text, two the same first one; neither is the other's wrong answer."""
TEMPERATURE = 0.1


def still_bert(folder: Path) -> str:
    """The BERT that ships with ftlab, without dropout."""
    import ftlab

    shutil.copytree(Path(ftlab.__file__).parent / "assets" / "tiny-bert", folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def loss_of(model: torch.nn.Module, tokenizer: object, pairs: list[tuple[str, str]]) -> Tensor:
    """Sum over the pairs of a batch: first texts look for second ones and second texts for first ones, half each."""
    vectors = []
    for texts in zip(*pairs, strict=True):
        found = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]  # type: ignore[operator]
        vectors.append(torch.stack([v / v.norm() for v in found]))
    total = torch.zeros(())
    for anchors, others in (vectors, vectors[::-1]):
        for i, (first, second) in enumerate(pairs):
            wrong = [j for j, (a, b) in enumerate(pairs) if a != first and b != second]
            scores = torch.stack([anchors[i] @ others[j] / TEMPERATURE for j in (i, *wrong)])
            total = total + (scores.logsumexp(0) - scores[0]) / 2
    return total


def gradient_of(folder: str, batches: list[list[int]]) -> dict[str, Tensor]:
    """The gradient of the mean over all pairs of some batches."""
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    count = sum(map(len, batches))
    for batch in batches:
        (loss_of(model, tokenizer, [PAIRS[i] for i in batch]) / count).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        found = gradient_of(still_bert(Path(work)), [list(range(len(PAIRS)))])
    norm = torch.stack([g.norm() for g in found.values()]).norm()
    sys.stdout.write(f"gradient norm {norm:.8f}, {len(found)} tensors\n")
