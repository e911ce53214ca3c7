"""Makes squad_cases.json: the figures of SQuAD 2.0's script, as transformers 4 adapted it, for answers and predictions of many kinds.

transformers 5 no longer has it: in an environment of its own, pip install "transformers==4.57.1" && python -m tests.reference.squad_cases
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

Pair = tuple[str, list[str]]
"""(predicted text, right answers)"""

FILE = Path(__file__).with_suffix(".json")
NAMES = {
    "exact": "exact_match", "f1": "f1", "HasAns_exact": "has_answer_exact_match", "HasAns_f1": "has_answer_f1",
    "NoAns_exact": "no_answer_exact_match", "NoAns_f1": "no_answer_f1",
}  # fmt: skip
"""The script's name of a figure → ours."""
WORDS = (
    "the", "The", "THE", "a", "an", "A.", "Theatre", "ante", "a-an", "the_end", "U.S.", "1,000", "24–10", "24-10", "50%", "$5", "Denver",
    "denver", "Broncos.", "(three)", "“quoted”", "'quoted'", "naïve", "nai\u0308ve", "İstanbul", "istanbul", "Straße", "STRASSE", "ǅ",
    "東京", "東京。", "دونالد", "𝕏", "x\u00a0y", "x\u2009y", "a\u200bb", "\u00ad", "—", "...", "!", "´", "x\ty", "the\nend", "№", "the's",
)  # fmt: skip


def text(rng: random.Random, most: int = 5) -> str:
    """Some words, at times with more white space than there need be."""
    return rng.choice((" ", " ", "  ")).join(rng.choices(WORDS, k=rng.randint(1, most)))


def pair(rng: random.Random, answered: float) -> Pair:
    """A question's answers, and a prediction that often has much in common with one of them."""
    answers = [text(rng) for _ in range(rng.randint(1, 4))] if rng.random() < answered else []
    kind = rng.random()
    if kind < 0.2:
        return "", answers
    if kind < 0.4 or not answers:
        return text(rng), answers
    words = rng.choice(answers).split(" ")
    if kind < 0.6:
        return " ".join(words).swapcase(), answers
    return " ".join([*rng.sample(words, rng.randint(1, len(words))), *rng.choices(WORDS, k=rng.randint(0, 2))]), answers


def cases() -> list[list[Pair]]:
    """The inputs, the same every time: splits with and without answers, with both, and of one question."""
    rng = random.Random(0)
    splits = [(60, 0.7), (60, 0.7), (60, 0.3), (60, 1.0), (60, 0.0)]
    return [[pair(rng, share) for _ in range(size)] for size, share in splits + [(1, 0.6)] * 40]


def measured(pairs: list[Pair]) -> dict[str, float]:
    """The script's figures under our names."""
    from transformers.data.metrics.squad_metrics import squad_evaluate  # type: ignore[import-not-found,unused-ignore]  # of 4

    examples = [SimpleNamespace(qas_id=str(i), answers=[{"text": text} for text in answers]) for i, (_, answers) in enumerate(pairs)]
    found = squad_evaluate(examples, {str(i): predicted for i, (predicted, _) in enumerate(pairs)})
    return {ours: float(found[theirs]) for theirs, ours in NAMES.items() if theirs in found}


def main() -> None:
    """Write the file."""
    FILE.write_text("[\n" + ",\n".join(json.dumps(measured(pairs)) for pairs in cases()) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
