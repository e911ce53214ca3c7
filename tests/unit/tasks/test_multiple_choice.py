from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultipleChoice

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError, DataError
from ftlab.module import FinetuneModule
from ftlab.rows import Row, Stored
from ftlab.samples import random_tokens
from ftlab.strategies.bottleneck import BottleneckAdapter
from ftlab.strategies.loreft import LoReFT
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.tasks.multiple_choice import MultipleChoice
from ftlab.testing.models import tiny_config
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.training import model_folder, texts, tiny_module, trainer

TOKENIZER = byte_tokenizer(pairs=True, segments=True)
ROWS: list[Row] = [
    {"question": q, "about": texts(20)[i + 9][:20], "choices": [f"{c} {i}"[:9] for c in texts(9)[i : i + 3]], "label": i % 3}
    for i, q in enumerate(text[:20] for text in texts(6))
]
TASK = MultipleChoice(choices=3)


def stored(task: MultipleChoice, rows: Sequence[Row] = ROWS, limit: int = 64, labelled: bool = True) -> list[Stored]:
    """Through 32-bit arrays, as the token cache gives them."""
    numbered = list(enumerate(rows))
    examples = task.bind(lambda: numbered).encode(numbered, TOKENIZER, limit, labelled)
    return [{n: np.atleast_1d(np.asarray(v)).astype(np.int32) for n, v in example.items()} for example in examples]


def collate(task: MultipleChoice, rows: Sequence[Row] = ROWS, labelled: bool = True) -> Batch:
    return task.collate(stored(task, rows, labelled=labelled), TOKENIZER)


def model(family: str = "bert") -> Any:
    torch.manual_seed(0)
    return AutoModelForMultipleChoice.from_config(tiny_config(family)).eval()


@pytest.mark.parametrize("context", [None, "about"])
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_inputs_and_loss_are_the_models_own(context: str | None, family: str) -> None:
    task = MultipleChoice(context_column=context)
    batch = collate(task)
    firsts = [row[context or "question"] for row in ROWS for _ in range(3)]
    seconds = [choice if context is None else f"{row['question']} {choice}" for row in ROWS for choice in row["choices"]]  # type: ignore[attr-defined]
    theirs = TOKENIZER(firsts, seconds, padding=True, return_tensors="pt")
    assert {name: t.flatten(0, 1).tolist() for name, t in batch.inputs.items()} == {name: t.tolist() for name, t in theirs.items()}
    assert batch.rows.tolist() == list(range(6))
    chooser = model(family)
    names = {"input_ids", "attention_mask"} | ({"token_type_ids"} if family == "bert" else set())
    inputs = {name: t for name, t in batch.inputs.items() if name in names}
    alone = []
    for i in range(6):  # without the padding that other rows need
        ids = TOKENIZER(firsts[3 * i : 3 * i + 3], seconds[3 * i : 3 * i + 3], padding=True, return_tensors="pt")
        alone.append(chooser(**{n: t[None] for n, t in ids.items() if n in names}, labels=torch.tensor([i % 3])).loss.item())
    outputs = task.forward(chooser, Batch(inputs=inputs, labels=batch.labels, rows=batch.rows))
    assert float(outputs.sums["choice"].detach()) == pytest.approx(sum(alone), rel=1e-5)
    assert int(outputs.counts["choice"]) == batch.counts()["choice"] == 6


def test_a_filler_adds_nothing_and_still_has_a_gradient() -> None:
    chooser = model()
    outputs = TASK.forward(chooser, collate(TASK).unscored())
    assert (float(outputs.sums["choice"].detach()), float(outputs.counts["choice"])) == (0.0, 0.0)
    outputs.sums["choice"].backward()
    assert chooser.classifier.weight.grad is not None
    assert not chooser.classifier.weight.grad.any()


def test_predictions_are_those_of_the_model() -> None:
    chooser, batch = model(), collate(TASK, labelled=False)
    with torch.no_grad():
        logits = chooser(**batch.inputs).logits
    for record, row in zip(TASK.predict(chooser, batch), logits, strict=True):
        assert record["choice"] == int(row.argmax())
        assert record["scores"] == pytest.approx(row.softmax(0).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    "tuning", [PromptTuning(length=3), PrefixTuning(length=3), BottleneckAdapter(), LoReFT()], ids=lambda t: type(t).__name__
)
def test_strategies_that_look_at_rows_of_tokens(tmp_path: Path, tuning: Any) -> None:
    """What a choice gets depends neither on its padding nor on other rows."""
    module = FinetuneModule(Backbone(name=str(model_folder(tmp_path, "bert"))), TASK, tuning)
    module.configure_model()
    with torch.no_grad():
        for parameter in module.adapted.parameters():
            parameter.add_(0.01 * parameter.requires_grad)
    chooser = module.adapted.eval()
    together = TASK.predict(chooser, collate(TASK))
    for row, record in zip(ROWS, together, strict=True):
        (alone,) = TASK.predict(chooser, collate(TASK, [row]))
        assert record["scores"] == pytest.approx(alone["scores"], abs=1e-5)


def test_random_tokens_are_inputs_of_the_model(tmp_path: Path) -> None:
    """What an export is compared on where its rows are gone."""
    module = tiny_module(tmp_path, TASK, "bert")
    module.configure_model()
    logits = module.adapted(**random_tokens(module)).logits
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [2, 40])
def test_accuracy_does_not_depend_on_the_batches(tmp_path: Path, size: int) -> None:
    items: Any = {"val": ROWS}
    data = FinetuneData(Rows(items=items), val_split="val", batch_size=1, eval_batch_size=size)
    torch.manual_seed(0)
    module = tiny_module(tmp_path, TASK, "bert")
    (found,) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    guesses = [r["choice"] for r in TASK.predict(module.adapted.eval(), collate(TASK))]
    assert found["val_accuracy"] == pytest.approx(sum(g == r["label"] for g, r in zip(guesses, ROWS, strict=True)) / 6)


def test_a_label_may_be_the_text_of_a_choice() -> None:
    for values, places in ((("x", "1", "0"), [0, 1, 0]), ((1, 0), [1, 0])):
        rows: list[Row] = [{"question": "a", "choices": ["x", "1"], "label": v} for v in values]
        assert collate(MultipleChoice(), rows).labels["choice"].tolist() == places


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"choices": ["a", "b", "c", "d"]}, "row 1, column 'choices' has 4 choices while others have 3"),
        ({"choices": ["a", "b"]}, "row 1, column 'choices' has 2 choices while others have 3"),
        ({"choices": "abc"}, "row 1, column 'choices' holds 'abc'; it must be a list of texts"),
        ({"choices": ["a", "", "c"]}, "row 1, column 'choices' has the choice ''"),
        ({"choices": ["a", 2, "c"]}, "row 1, column 'choices' has the choice 2"),
        ({"label": 3}, "row 1 has the label 3; it must be one of its choices, or a place from 0 to 2"),
        ({"label": -1}, "row 1 has the label -1"),
        ({"label": True}, "row 1 has the label True"),
        ({"label": "nothing"}, "row 1 has the label 'nothing'"),
        ({"choices": ["a", "b", "c"], "label": "b"}, "row 1 has the label 'b' while others, from row 0, are whole numbers"),
        ({"choices": ["a", "b", "a"], "label": "a"}, "row 1 has the choice 'a' twice"),
        ({"label": None}, "row 1, column 'label' is empty"),
        ({"question": " "}, "row 1, column 'question' has no text"),
        ({"choices": ["a", "long " * 20, "c"]}, "row 1 has"),
    ],
)
def test_rows_that_cannot_be_used(row: Row, said: str) -> None:
    with pytest.raises(DataError) as caught:
        stored(MultipleChoice(), [ROWS[0], {**ROWS[1], **row}])
    assert said in str(caught.value)


def test_a_first_row_that_is_skipped_does_not_count() -> None:
    skipped = {**ROWS[0], "question": " ", "choices": ["a", "b"]}
    assert MultipleChoice(empty="skip").bind(lambda: enumerate([skipped, *ROWS])).choices == 3


def test_a_first_row_without_a_choice() -> None:
    with pytest.raises(DataError, match=r"row 0, column 'choices' has 1 choice\(s\)"):
        stored(MultipleChoice(), [{**ROWS[0], "choices": ["a"]}])
    with pytest.raises(ConfigError, match="model.task.choices is 1"):
        MultipleChoice(choices=1)


def test_rows_that_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [ROWS[0], {**ROWS[1], "choices": ["a", "long " * 20, "c"]}]
    with caplog.at_level(logging.WARNING):
        found = stored(MultipleChoice(too_long="truncate"), rows)
    assert max(found[1]["lengths"]) == 64
    assert "1 rows were cut to 64 tokens" in caplog.text


def test_columns_that_are_asked_for() -> None:
    assert MultipleChoice(context_column="about").columns(labelled=True) == ("question", "about", "choices", "label")
    assert MultipleChoice().columns(labelled=False) == ("question", "choices")
