"""What costs nothing, by the metrics of the tasks, on the rows of wnut17.yaml and xquad.yaml.

Each word has the tag that it has most often in training. The answer is the run of words that the words of the question surround most.

python experiments/tasks/baselines.py > experiments/tasks/results/baselines.json
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ftlab.data.sources.base import DataSource
from ftlab.data.sources.conll import Conll
from ftlab.data.sources.squad import Squad
from ftlab.data.splits import resolve
from ftlab.rows import Prediction
from ftlab.tasks.question_answering import QuestionAnswering
from ftlab.tasks.token_classification import TokenClassification

HERE = Path(__file__).parent
LONGEST = 4
"""Words of an answer at most: five of six in XQuAD have no more."""
REACH = 8
"""Words to either side of an answer in which the question's count."""


def parts(name: str, source: type[DataSource], wanted: Iterable[str]) -> dict[str, list[tuple[int, Any]]]:
    """Split → numbered rows, cut exactly as the runs of a YAML cut them."""
    data = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))["data"]
    opened = source(**data["source"]["init_args"])
    views = resolve(opened, {"train": "train", "val": data["val_split"], "test": data.get("test_split"), "predict": None}, seed=0)
    return {split: list(views[split].rows(opened)) for split in wanted}


def most_frequent_tags() -> dict[str, dict[str, float]]:
    """WNUT17 with the most frequent tag of each word; a word that was not in training is outside."""
    found = parts("wnut17", Conll, ("train", "val", "test"))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, row in found["train"]:
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            counts[word][tag] += 1
    usual = {word: count.most_common(1)[0][0] for word, count in counts.items()}
    task = TokenClassification().bind(lambda: found["train"])
    figures = {}
    for split in ("val", "test"):
        tags: list[tuple[int, Prediction]] = [(n, {"tags": [usual.get(w, "O") for w in row["tokens"]]}) for n, row in found[split]]
        figures[split] = task.score(tags, found[split])
    return figures


def words(text: str) -> list[re.Match[str]]:
    """The words of a text, and where they are."""
    return list(re.finditer(r"\w+", text))


def rarity(contexts: Iterable[str]) -> dict[str, float]:
    """Word → −log of the share of contexts that have it."""
    sets = [{w[0].lower() for w in words(context)} for context in set(contexts)]
    counts = Counter(word for found in sets for word in found)
    return {word: math.log(len(sets) / count) for word, count in counts.items()}


def surrounded(question: str, context: str, weight: dict[str, float]) -> str:
    """The run of words outside the question about which its words stand nearest; of equal ones the shorter, then the earlier."""
    asked = {w[0].lower() for w in words(question)}
    inside = words(context)
    gains = [weight.get(w[0].lower(), 0.0) if w[0].lower() in asked else 0.0 for w in inside]
    best, text = -1.0, ""
    for size in range(1, LONGEST + 1):
        for start in range(len(inside) - size + 1):
            run = inside[start : start + size]
            if not any(w[0].lower() in asked for w in run) and (near := _near(gains, start, start + size)) > best:
                best, text = near, context[run[0].start() : run[-1].end()]
    return text


def _near(gains: Sequence[float], start: int, end: int) -> float:
    before = sum(gain / (start - i) for i, gain in enumerate(gains[max(0, start - REACH) : start], max(0, start - REACH)))
    return before + sum(gain / (i - end + 1) for i, gain in enumerate(gains[end : end + REACH], end))


def window_overlap() -> dict[str, float]:
    """XQuAD's held-out questions, each answered with the words that those of the question surround."""
    found = parts("xquad", Squad, ("train", "val"))
    weight = rarity(row["context"] for _, row in found["train"])
    texts: list[tuple[int, Prediction]] = [(n, {"text": surrounded(row["question"], row["context"], weight)}) for n, row in found["val"]]
    return QuestionAnswering().score(texts, found["val"])


def main() -> None:
    """Print all figures."""
    print(json.dumps({"wnut17": {"most_frequent_tag": most_frequent_tags()}, "xquad": {"window_overlap": window_overlap()}}, indent=2))


if __name__ == "__main__":
    main()
