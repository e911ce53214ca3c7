"""From examples to batches: a function of the seed, the same after a break, and each example on one rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ftlab.batch import Batch
from ftlab.data.loader import Plan
from ftlab.heads import output_of
from ftlab.rows import Stored
from ftlab.tasks.base import Task
from ftlab.tasks.masking import special_ids
from ftlab.testing.conformance.check import NotApplicableError, require, task_check
from ftlab.testing.conformance.subject import seed_all
from ftlab.testing.conformance.tasks.subject import TaskSubject, changed, same_example

EPOCHS = 4


@task_check("encode_pure")
def draws(subject: TaskSubject) -> None:
    """What an epoch shows, and the batch that is made of it, follow from seed, epoch and example alone; a `draw` differs by epoch.

    Masks from a global generator depend on the number of workers, and a resumed run sees other ones.
    """
    count, found = len(subject.store), []
    for seed, order in ((1, range(count)), (2, range(count - 1, -1, -1))):
        seed_all(seed)
        shown = {i: subject.shown(i) for i in order}
        found.append((shown, subject.bound.collate([shown[i] for i in range(count)], subject.tokenizer)))
    (first, batch), (second, other) = found
    bad = [i for i in first if not same_example(first[i], second[i])]
    require(not bad, f"draw gives another example {bad[:1]} the second time, with the same key")
    require(not changed(batch, other), f"collate gives another {changed(batch, other)} of the same examples the second time")
    if type(subject.task).draw is not Task.draw:
        later = [_epoch(subject, epoch) for epoch in range(EPOCHS)]
        moves = any(not same_example(a, b) for one in later[1:] for a, b in zip(later[0], one, strict=True))
        require(moves, f"draw shows the same in {EPOCHS} epochs; use the whole key, or let encode do it once")


def _epoch(subject: TaskSubject, epoch: int) -> Sequence[Stored]:
    return [subject.shown(i, epoch) for i in range(len(subject.store))]


@task_check("draws")
def special_tokens(subject: TaskSubject) -> None:
    """Where `draw` puts mask tokens, the special tokens of an example stay, and none is to be guessed.

    They stand at the same places in every row: a model that is asked for them is always right, and its accuracy says too much.
    """
    mask, words = subject.tokenizer.mask_token_id, output_of(subject.model) is not None
    special = np.array([i for i in special_ids(subject.tokenizer) if i != mask])
    hides = False
    for epoch in range(EPOCHS):
        for index, shown in enumerate(_epoch(subject, epoch)):
            before, after = (np.asarray(example.get("input_ids", [])) for example in (subject.store[index], shown))
            if (after == mask).sum() <= (before == mask).sum():
                continue
            hides = True
            first, then = (Counter(ids[np.isin(ids, special)].tolist()) for ids in (before, after))
            require(len(before) != len(after) or first <= then, f"draw hides the special tokens {list(first - then)} of example {index}")
            batch = subject.bound.collate([shown], subject.tokenizer)
            hidden = batch.inputs["input_ids"] == mask
            for head, labels in batch.labels.items():
                asked = set(labels[hidden].tolist()) & set(special.tolist()) if words and labels.shape == hidden.shape else set()
                require(not asked, f"of example {index}, '{head}' asks for the special tokens {sorted(asked)} behind mask tokens")
    if not hides:
        raise NotApplicableError("draw puts no mask tokens")


@task_check("draws")
def resumes(subject: TaskSubject) -> None:
    """A loader that is stopped and goes on gives the batches that it would have given.

    State in the task, such as a counter of calls, starts over with its process.
    """
    plan = Plan(batch_size=2, seed=1, shuffle=True)
    whole = subject.loader(plan)
    expected = [*whole, *whole]
    broken = subject.loader(plan)
    begun = [next(iter(broken))]
    resumed = subject.loader(plan)
    resumed.load_state_dict(broken.state_dict())
    found = [*begun, *resumed, *resumed]
    require(len(found) == len(expected), f"resumed, the loader gives {len(found)} batches instead of {len(expected)}")
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        require(not changed(one, other), f"resumed, batch {number} has another {changed(one, other)}")


@task_check("draws")
def ranks(subject: TaskSubject) -> None:
    """Two ranks see every example once between them, under its own row number, and as many scored positions as one rank does.

    A collator that drops or repeats rows trains on other data than the run's description says.
    """
    world = 2
    alone = list(subject.loader(Plan(batch_size=2)))
    shared = [batch for rank in range(world) for batch in subject.loader(Plan(batch_size=1, rank=rank, world=world))]
    for batches in (alone, shared):
        seen = sorted(i for batch in batches for i in batch.index)
        require(seen == list(range(len(subject.store))), f"the examples {seen} come out of {len(subject.store)}")
        for batch in batches:
            rows = [int(subject.store[i]["row"][0]) for i in batch.index] or [-1]
            require(batch.rows.tolist() == rows, f"a batch of the rows {rows} says that it has the rows {batch.rows.tolist()}")
    require(_counted(alone) == _counted(shared), f"two ranks score {_counted(shared)} positions, one scores {_counted(alone)}")


def _counted(batches: Sequence[Batch]) -> dict[str, int]:
    heads = {head for batch in batches for head in batch.labels}
    return {head: sum(batch.counts()[head] for batch in batches) for head in sorted(heads)}
