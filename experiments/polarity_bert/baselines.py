"""What costs nothing: the majority class and a bag-of-words logistic regression, on the rows of polarity_bert.yaml.

python experiments/polarity_bert/baselines.py > experiments/polarity_bert/results/baselines.json
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import yaml
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ftlab.data.sources.labelled_files import LabelledFiles
from ftlab.data.splits import resolve

CONFIG = Path(__file__).parents[1] / "polarity_bert.yaml"


def rows() -> dict[str, tuple[list[str], list[str]]]:
    """`train` and `val` → texts and labels, cut exactly as the runs cut them."""
    data = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["data"]
    source = LabelledFiles(**data["source"]["init_args"])
    views = resolve(source, {"train": "train", "val": data["val_split"]}, seed=0)
    parts = {}
    for name in ("train", "val"):
        found = [row for _, row in views[name].rows(source)]
        parts[name] = ([str(r["text"]) for r in found], [str(r["label"]) for r in found])
    return parts


def main() -> None:
    """Print both accuracies."""
    parts = rows()
    (texts, labels), (val_texts, val_labels) = parts["train"], parts["val"]
    majority = Counter(labels).most_common(1)[0][0]
    words = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000)).fit(texts, labels)
    figures = {
        "rows": {name: len(part[0]) for name, part in parts.items()},
        "majority_class": sum(label == majority for label in val_labels) / len(val_labels),
        "bag_of_words": float(words.score(val_texts, val_labels)),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
