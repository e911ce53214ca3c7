from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ftlab.backbone import Backbone
from ftlab.callbacks.predictions import PredictionWriter
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.lora import LoRA
from ftlab.strategies.qlora import QLoRA
from ftlab.tasks.answers import best_spans
from ftlab.tasks.question_answering import QuestionAnswering
from ftlab.testing.models import ENCODERS, tiny_model_folder
from tests.unit.backbones import configured
from tests.unit.tasks.asking import BYTES, LONG, collate, encode, model, question, questions
from tests.unit.training import tiny_module, trainer


def test_the_loss_is_the_models_own() -> None:
    """The mean of the losses of both ends, where no row is padded."""
    task = QuestionAnswering(unanswerable=True)
    rows = [question("Ada met Bo.", "Ada"), question("Bo met Ada.", "Ada"), question("So it was.", asked="What?")]
    batch = collate(task, encode(task, rows))
    assert "attention_mask" not in batch.inputs
    answering = model()
    theirs = answering(**batch.inputs, start_positions=batch.labels["start"], end_positions=batch.labels["end"]).loss
    outputs = task.forward(answering, batch)
    means = {head: outputs.sums[head] / outputs.counts[head] for head in task.heads}
    assert sum(task.weights()[head] * means[head].item() for head in task.heads) == pytest.approx(theirs.item(), rel=1e-6)
    assert batch.counts() == {"start": 3, "end": 3}
    assert (int(batch.labels["start"][2]), int(batch.labels["end"][2])) == (0, 0)  # [CLS]


def test_padding_has_no_share_in_the_loss() -> None:
    task = QuestionAnswering()
    rows = [question("Ada met Bo.", "Ada"), question("Bo met Ada in a town far away.", "Ada")]
    examples = encode(task, rows)
    answering = model()
    together = task.forward(answering, collate(task, examples))
    alone = [task.forward(answering, collate(task, [e])) for e in examples]
    for head in task.heads:
        assert together.sums[head].item() == pytest.approx(sum(a.sums[head].item() for a in alone), rel=1e-5)


@pytest.mark.parametrize("answer", ["dog", "the", "naïve", "trees"])
def test_the_target_is_the_answer(answer: str) -> None:
    context = f"naïve {LONG[:30]} dog trees"
    (example,) = encode(QuestionAnswering(), [question(context, answer)])
    ids = example["input_ids"][example["start"] : example["end"] + 1]
    assert BYTES.decode(ids) == answer
    # A byte is a token, and special ones stand before and after the question.
    first = 2 + len(b"Who?") + len(context[: context.index(answer)].encode())
    assert (example["start"], example["end"]) == (first, first + len(answer.encode()) - 1)


@pytest.mark.parametrize("stride", [None, 0, 20])
def test_a_window_that_does_not_show_the_answer_points_at_the_first_token(stride: int | None) -> None:
    row = question(LONG, "lazy dog", "lazy")
    examples = encode(QuestionAnswering(stride=stride), [row], limit=40)
    room = 40 - 7
    shared = room // 3 if stride is None else stride
    starts = [*range(0, len(LONG) - room, room - shared), len(LONG) - room]
    texts = [LONG[s : s + room] for s in starts]
    assert [BYTES.decode(e["input_ids"], skip_special_tokens=True) for e in examples] == [f"Who?{text}" for text in texts]
    at = LONG.index("lazy dog")
    inside = [s <= at and at + len("lazy dog") <= s + room for s in starts]
    assert any(inside)
    assert not all(inside)
    for example, start, shown in zip(examples, starts, inside, strict=True):
        assert (example["start"], example["end"]) == ((6 + at - start, 6 + at - start + 7) if shown else (0, 0))


def test_predictions_are_the_best_spans_of_all_windows() -> None:
    """Beside every pair of positions of every window."""
    task = QuestionAnswering(n_best=5, max_answer_tokens=4)
    answering = model()
    row = question(LONG, "lazy dog", asked="What barks?")
    examples = encode(task, [{k: v for k, v in row.items() if k != "answers"}], limit=50, labelled=False)
    assert len(examples) > 3
    found: dict[tuple[int, int], float] = {}
    for start in [*range(0, len(LONG) - 36, 36 - 12), len(LONG) - 36]:
        context = LONG[start : start + 36]
        with torch.no_grad():
            outputs = answering(**BYTES("What barks?", context, return_tensors="pt"))
        for i, j in product(range(len(context)), repeat=2):
            if i <= j < i + 4 and not context[i].isspace() and not context[j].isspace():
                score = float(outputs.start_logits[0, 13 + i] + outputs.end_logits[0, 13 + j])
                found[start + i, start + j + 1] = max(score, found.get((start + i, start + j + 1), -math.inf))
    expected = sorted(found.items(), key=lambda item: -item[1])[:5]
    merged: Any = task.merge(task.predict(answering, collate(task, examples)))
    assert [(s["start"], s["end"]) for s in merged["n_best"]] == [place for place, _ in expected]
    assert [s["score"] for s in merged["n_best"]] == pytest.approx([score for _, score in expected], rel=1e-4)
    assert [s["text"] for s in merged["n_best"]] == [LONG[a:b] for (a, b), _ in expected]
    weights = torch.tensor([score for _, score in expected]).softmax(0)
    assert [s["probability"] for s in merged["n_best"]] == pytest.approx(weights.tolist(), rel=1e-4)
    assert (merged["id"], merged["text"], merged["start"]) == ("q0", merged["n_best"][0]["text"], expected[0][0][0])
    assert merged.keys() == {"id", "text", "start", "end", "n_best"}


class Contextless(nn.Module):
    """Scores that follow from each token alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(300, 2)

    def forward(self, input_ids: Tensor, **others: Tensor) -> SimpleNamespace:
        scores = self.table(input_ids)
        return SimpleNamespace(start_logits=scores[..., 0], end_logits=scores[..., 1])


def test_windows_give_what_the_whole_context_gives_where_context_does_not_matter() -> None:
    task = QuestionAnswering(unanswerable=True, max_answer_tokens=8, stride=8)
    row = question(LONG)
    whole, parts = (encode(task, [row], limit=limit, labelled=False) for limit in (1000, 40))
    assert len(whole) < len(parts)
    expected, found = (task.merge(task.predict(Contextless(), collate(task, examples))) for examples in (whole, parts))
    assert found == expected


def records(null: float, *scores: float) -> list[dict[str, object]]:
    """Two windows whose spans have these scores."""
    spans = [(i, i + 1, score, f"t{i}") for i, score in enumerate(scores)]
    shared: dict[str, object] = {"id": "a", "windows": 2}
    return [{**shared, "null": null, "spans": spans[:1]}, {**shared, "null": null + 5, "spans": spans[1:]}]


@pytest.mark.parametrize(("threshold", "text"), [(0.0, ""), (1.0, ""), (1.5, "t1"), (9.0, "t1")])
def test_no_answer_is_predicted_above_the_threshold(threshold: float, text: str) -> None:
    """The window that is the surest of an answer tells how likely there is none."""
    merged: Any = QuestionAnswering(unanswerable=True, null_threshold=threshold).merge(records(3.5, 1.0, 2.0))
    assert (merged["text"], merged["null_odds"]) == (text, 1.5)
    assert (merged["start"], merged["end"]) == ((1, 2) if text else (None, None))
    weights = torch.tensor([2.0, 1.0, 3.5]).softmax(0).tolist()
    assert [s["probability"] for s in merged["n_best"]] == pytest.approx(weights[:2])


def test_an_answer_is_always_predicted_where_there_is_always_one() -> None:
    merged: Any = QuestionAnswering().merge(records(99.0, 1.0, 2.0))
    assert merged["text"] == "t1"


@pytest.mark.parametrize("unanswerable", [False, True])
def test_questions_of_which_not_all_windows_were_run_are_not_scored(unanswerable: bool) -> None:
    task, answering = QuestionAnswering(unanswerable=unanswerable), model()
    rows = [question("Ada met Bo.", "Ada", number=0), question(LONG, "lazy dog", number=1)]
    short, *long = task.predict(answering, collate(task, encode(task, rows, limit=40)))
    assert len(long) > 3
    whole, part = task.merge(long), task.merge(long[:2])
    assert "unseen_windows" not in whole
    assert part["unseen_windows"] == len(long) - 2
    alone = task.score([(0, task.merge([short]))], [(0, rows[0])])
    assert task.score([(0, task.merge([short])), (1, part)], list(enumerate(rows))) == alone
    figures = task.score([(1, part)], list(enumerate(rows)))
    assert figures.keys() == {"exact_match", "f1"}
    assert all(map(math.isnan, figures.values()))


def test_a_validation_that_ends_within_the_first_question_has_a_loss_and_no_figure(tmp_path: Path) -> None:
    rows = [question(LONG, "lazy dog", number=i) for i in range(3)]
    data = FinetuneData(Rows(items={"val": rows}), val_split="val", eval_batch_size=2, max_length=40)  # type: ignore[dict-item]
    runner = trainer(tmp_path, limit_val_batches=1)
    (figures,) = runner.validate(tiny_module(tmp_path, QuestionAnswering(), "bert"), datamodule=data, verbose=False)
    assert figures["val_loss"] > 0
    assert math.isnan(figures["val_exact_match"])
    assert math.isnan(figures["val_f1"])


@pytest.mark.parametrize("tuning", [LoRA(), QLoRA()], ids=["whole", "4 bits"])
@pytest.mark.parametrize("family", ENCODERS)
def test_no_answer_is_the_first_token_of_an_encoder(family: str, tuning: TuningStrategy, tmp_path: Path) -> None:
    folder = str(tiny_model_folder(family, tmp_path))
    for seed in range(8):  # the head is random, and in a short type its answer may come out the same by chance
        torch.manual_seed(seed)
        configured(Backbone(name=folder, dtype="bfloat16"), QuestionAnswering(unanswerable=True), tuning)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt"])
def test_a_first_token_that_sees_nothing_cannot_stand_for_no_answer(
    family: str, dtype: Literal["float32", "bfloat16"], tmp_path: Path
) -> None:
    backbone = Backbone(name=str(tiny_model_folder(family, tmp_path)), dtype=dtype)
    configured(backbone, QuestionAnswering(), LoRA())
    said = r"model\.task\.unanswerable is true, but the first token of a \w+ForQuestionAnswering.* sees no other; choose an encoder such as"
    with pytest.raises(ConfigError, match=said):
        configured(backbone, QuestionAnswering(unanswerable=True), LoRA())


@pytest.mark.parametrize("scores", [(1.0, 2.0), (2.0, 1.0)])
def test_a_span_that_two_windows_show_is_listed_once(scores: tuple[float, ...]) -> None:
    windows = [{"id": "a", "null": 0.0, "spans": [(3, 4, score, "x")], "windows": 2} for score in scores]
    merged: Any = QuestionAnswering().merge(windows)
    assert [s["score"] for s in merged["n_best"]] == [2.0]


@pytest.mark.parametrize(("longest", "n_best"), [(1, 3), (3, 7), (30, 100)])
def test_the_best_spans_are_the_best_of_all(longest: int, n_best: int) -> None:
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 9))
    start[4] = end[4] = -np.inf
    every = [(i, j, start[i] + end[j]) for i in range(9) for j in range(i, min(9, i + longest)) if 4 not in (i, j)]
    assert best_spans(start, end, n_best, longest) == sorted(every, key=lambda span: -span[2])[:n_best]


@pytest.mark.parametrize("size", [3, 40])
def test_figures_do_not_depend_on_the_batch_size(tmp_path: Path, size: int) -> None:
    def validated(size: int) -> dict[str, float]:
        data = FinetuneData(Rows(items={"val": questions(13)}), val_split="val", eval_batch_size=size, max_length=40)  # type: ignore[dict-item]
        torch.manual_seed(0)  # for a fresh head
        module = tiny_module(tmp_path, QuestionAnswering(unanswerable=True), "bert")
        (figures,) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
        return dict(figures)

    one = validated(1)
    assert validated(size) == pytest.approx(one, rel=1e-5)
    assert one["val_loss"] == pytest.approx((one["val_loss_start"] + one["val_loss_end"]) / 2)
    assert {"val_exact_match", "val_f1", "val_has_answer_f1", "val_no_answer_exact_match"} <= one.keys()


def test_predict_writes_the_official_files(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "answers"} for row in questions(6)]
    data = FinetuneData(Rows(items={"new": rows}), predict_split="new", val_split=None, max_length=40)  # type: ignore[dict-item]
    module = tiny_module(tmp_path, QuestionAnswering(unanswerable=True), "bert")
    trainer(tmp_path, [PredictionWriter(tmp_path, "jsonl")]).predict(module, datamodule=data, return_predictions=False)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == list(range(6))
    assert json.loads((tmp_path / "predictions_squad.json").read_text()) == {f"q{i}": line["text"] for i, line in enumerate(lines)}
    assert json.loads((tmp_path / "null_odds_squad.json").read_text()) == {f"q{i}": line["null_odds"] for i, line in enumerate(lines)}
    for row, line in zip(rows, lines, strict=True):
        assert line["text"] == ("" if line["start"] is None else str(row["context"])[line["start"] : line["end"]])


def test_there_are_no_odds_where_there_is_always_an_answer() -> None:
    files = QuestionAnswering().prediction_files([(0, {"id": "a", "text": "naïve"})])
    assert {name: json.loads(text) for name, text in files.items()} == {"predictions_squad.json": {"a": "naïve"}}
