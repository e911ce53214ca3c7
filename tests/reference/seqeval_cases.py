"""Makes seqeval_cases.json: what seqeval 1.2.2 says of sentences and predictions of many kinds, broken ones among them.

pip install seqeval && python -m tests.reference.seqeval_cases
"""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
TYPES = ("loc", "creative-work", "per")
PREFIXES = {"bio": "BI", "bilou": "BILU"}
NAMES = ("precision", "recall", "f1")


def sound(rng: random.Random, length: int, scheme: str) -> list[str]:
    """Tags of a sentence without a broken sequence."""
    tags: list[str] = []
    while len(tags) < length:
        kind, size = rng.choice(TYPES), min(rng.choice((1, 1, 2, 3)), length - len(tags))
        if rng.random() < 0.5:
            tags.append("O")
        elif scheme == "bio":
            tags += [f"B-{kind}", *[f"I-{kind}"] * (size - 1)]
        else:
            tags += [f"U-{kind}"] if size == 1 else [f"B-{kind}", *[f"I-{kind}"] * (size - 2), f"L-{kind}"]
    return tags


def guess(rng: random.Random, gold: list[str], scheme: str, wrong: float) -> list[str]:
    """A prediction: some of the tags are replaced by any other, so that sequences break."""
    tags = ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in PREFIXES[scheme])]
    return [rng.choice(tags) if rng.random() < wrong else tag for tag in gold]


def cases() -> list[dict[str, Any]]:
    """The inputs, the same every time."""
    rng = random.Random(0)
    found: list[dict[str, Any]] = []
    for scheme in PREFIXES:
        for wrong in (0.0, 0.1, 0.3, 0.6, 1.0):
            for sentences in (1, 3, 25):
                gold = [sound(rng, rng.randint(1, 14), scheme) for _ in range(sentences)]
                found.append({"scheme": scheme, "gold": gold, "predicted": [guess(rng, tags, scheme, wrong) for tags in gold]})
        for one, other in ((["O", "O"], ["O", "O"]), (["B-loc", "O"] if scheme == "bio" else ["U-loc", "O"], ["O", "O"])):
            found += [{"scheme": scheme, "gold": [a], "predicted": [b]} for a, b in ((one, other), (other, one))]
    return found


def measured(case: dict[str, Any]) -> dict[str, float]:
    """seqeval's figures: BIO in its default mode, BILOU in its strict one."""
    from seqeval.metrics import sequence_labeling, v1  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from seqeval.scheme import BILOU, Entities  # type: ignore[import-untyped,import-not-found,unused-ignore]

    gold, predicted = case["gold"], case["predicted"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is divided by zero
        if case["scheme"] == "bio":
            found, support = sequence_labeling.get_entities, sequence_labeling.precision_recall_fscore_support
            kinds = sorted({kind for kind, *_ in [*found(gold), *found(predicted)]})
            micro, each = (support(gold, predicted, average=average) for average in ("micro", None))
        else:
            kinds = sorted({e.tag for tags in (gold, predicted) for row in Entities(tags, BILOU).entities for e in row})
            micro, each = (
                v1.precision_recall_fscore_support(gold, predicted, average=average, scheme=BILOU) for average in ("micro", None)
            )
    figures = dict(zip(NAMES, map(float, micro[:3]), strict=True))
    for name, values in zip(NAMES, each[:3], strict=True):
        figures |= {f"{name}_{kind}": float(value) for kind, value in zip(kinds, values, strict=True)}
    return figures


def main() -> None:
    """Write the file."""
    lines = (json.dumps({**case, "figures": measured(case)}) for case in cases())
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
