"""What a bag of words finds, on the rows of stsb.yaml, xquad_retrieval.yaml, banking77.yaml and wikitext_mlm.yaml.

python experiments/tasks/baselines_text.py > experiments/tasks/results/baselines_text.json

TF-IDF weights come from the training rows alone. STS-B: Spearman and Pearson of the cosine; XQuAD: retrieval by the cosine;
Banking77: the most frequent label, and logistic regression; WikiText-2: nats per token by how often tokens occur, each counted once more.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from ftlab import registry
from ftlab.backbone import Backbone
from ftlab.data.splits import resolve
from ftlab.tasks.retrieval import retrieval

HERE = Path(__file__).parent
Rows = dict[str, list[dict[str, Any]]]


def rows_of(name: str) -> Rows:
    """Split → its rows, cut exactly as the runs cut them."""
    data = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))["data"]
    source = registry.load(registry.find(data["source"]["class_path"], "data"))(**data["source"]["init_args"])
    wanted = {"train": "train", "val": data.get("val_split", "auto"), "test": data.get("test_split")}
    return {split: [dict(row) for _, row in view.rows(source)] for split, view in resolve(source, wanted, 0).items()}


def sts() -> dict[str, Any]:
    """Correlations of the cosine of two sentences with their score."""
    parts = rows_of("stsb")
    words = TfidfVectorizer().fit([row[c] for row in parts.pop("train") for c in ("sentence1", "sentence2")])
    found = {}
    for split, rows in parts.items():
        first, second = (words.transform([row[c] for row in rows]) for c in ("sentence1", "sentence2"))
        cosines, scores = first.multiply(second).sum(1).A1, [float(row["score"]) for row in rows]
        found[split] = {"rows": len(rows), "spearman": spearmanr(cosines, scores).statistic, "pearson": pearsonr(cosines, scores).statistic}
    return found


def xquad() -> dict[str, Any]:
    """How well questions find their paragraphs among those of the split."""
    parts = rows_of("xquad_retrieval")
    train, rows = parts["train"], parts["val"]
    words = TfidfVectorizer(sublinear_tf=True).fit(sorted({row["context"] for row in train}))
    questions, contexts = (list(dict.fromkeys(row[c] for row in rows)) for c in ("question", "context"))
    right = [{contexts.index(row["context"]) for row in rows if row["question"] == q} for q in questions]
    figures = retrieval(words.transform(questions).toarray(), words.transform(contexts).toarray(), right)
    return {"val": {"questions": len(questions), "paragraphs": len(contexts), **figures}}


def banking() -> dict[str, Any]:
    """The most frequent label and logistic regression over words and pairs of words."""
    parts = rows_of("banking77")
    texts, labels = ([row[c] for row in parts["train"]] for c in ("text", "category"))
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000, C=10)).fit(
        texts, labels
    )
    ((most, _),) = Counter(labels).most_common(1)
    found = {}
    for split in ("val", "test"):
        truth = [row["category"] for row in parts[split]]
        guess = words.predict([row["text"] for row in parts[split]])
        found[split] = {
            "rows": len(truth),
            "most_frequent": sum(label == most for label in truth) / len(truth),
            "accuracy": accuracy_score(truth, guess),
            "f1": f1_score(truth, guess, average="macro"),
        }
    return found


def wikitext() -> dict[str, Any]:
    """What guessing by frequency alone costs."""
    tokenizer = Backbone(name="ftlab/tiny-bert").load_tokenizer()
    tokens = {
        split: np.concatenate([tokenizer(row["text"], add_special_tokens=False, verbose=False)["input_ids"] for row in rows])
        for split, rows in rows_of("wikitext_mlm").items()
    }
    counts = np.bincount(tokens["train"].astype(int), minlength=len(tokenizer)) + 1
    return {"val": {"tokens": len(tokens["val"]), "loss": -np.log(counts / counts.sum())[tokens["val"].astype(int)].mean()}}


def main() -> None:
    """Print all figures."""
    found = {"stsb": sts(), "xquad_retrieval": xquad(), "banking77": banking(), "wikitext_mlm": wikitext()}
    print(json.dumps(found, indent=2, default=float))


if __name__ == "__main__":
    main()
