"""Predictions and figures: one for each row, whatever the batch size."""

from __future__ import annotations

import json
from dataclasses import replace

import torch

from ftlab.data.loader import Plan
from ftlab.evaluation import Evaluation
from ftlab.gathering import Numbered, predictions_of
from ftlab.run_folder import finite
from ftlab.testing.conformance.check import NotApplicableError, require, task_check
from ftlab.testing.conformance.tasks.scoring import near
from ftlab.testing.conformance.tasks.subject import TaskSubject


@task_check("neighbours")
def predictions(subject: TaskSubject) -> None:
    """There is one prediction for each row or example, which JSON can hold, and as many `records` to score.

    A record too many, or one that cannot be written, spoils the file when hours of prediction are done.
    """
    task, batch = subject.bound, subject.whole()
    records = task.predict(subject.model, batch)
    numbered: list[Numbered] = list(zip(batch.rows.tolist(), batch.index, records, strict=True))
    if not task.merges:
        _writable(records)
    merged = predictions_of(task, numbered)
    _writable([record for _, record in merged])
    rows = [row for row, _ in merged]
    require(not task.merges or len(set(rows)) == len(rows), "merge leaves several predictions of a row")
    files = task.prediction_files(merged)
    require(all(isinstance(text, str) for text in files.values()), "prediction_files gives something else than text")
    if task.scores:
        with torch.no_grad():
            again = task.records(task.forward(subject.model, batch), batch)
        require(len(again) == len(records), f"records gives {len(again)} records for {len(records)} examples")


def _writable(records: list[dict[str, object]]) -> None:
    for record in records:
        require(isinstance(record, dict) and "row" not in record, f"a prediction is {record!r:.80}; a dict without the key 'row' is wanted")
        try:
            json.dumps(finite(record), allow_nan=False)
        except (TypeError, ValueError) as error:
            require(False, f"a prediction cannot be written as JSON ({error}): {record!r:.80}")


@task_check("predictions")
def metrics(subject: TaskSubject) -> None:
    """Metrics and scores are the same for every batch size, and rows that are not scored do not count.

    Means of batch means are another number for another batch size; a rank's filler is no row.
    """
    expected, *others = (_figures(subject, size) for size in (len(subject.store), 1, 3))
    if not expected:
        raise NotApplicableError("the task has no metrics and no scores")
    for found in others:
        require(
            found.keys() == expected.keys(), f"with another batch size there are other figures: {sorted(found.keys() ^ expected.keys())}"
        )
        for name, value in expected.items():
            require(near(value, found[name]), f"with another batch size {name} is {found[name]:.6g} instead of {value:.6g}")


@torch.no_grad()
def _figures(subject: TaskSubject, size: int) -> dict[str, float]:
    """Figures that do not follow from the losses; the pass ends with a batch in which nothing is scored."""
    task = subject.bound
    evaluation = Evaluation(task, torch.device("cpu"))
    for batch in subject.loader(Plan(batch_size=size)):
        evaluation.add(task.forward(subject.model, batch), batch)
    filler = replace(subject.batch([0]).unscored(), index=())  # as the loader makes it
    evaluation.add(task.forward(subject.model, filler), filler)
    found = evaluation.result(lambda t: t, lambda: enumerate(subject.rows))
    losses = {"loss", *(f"loss_{head}" for head in task.heads), *task.derived(dict.fromkeys(task.heads, 1.0))}
    return {name: value for name, value in found.items() if name not in losses}
