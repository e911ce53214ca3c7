from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ftlab.batch import IGNORE, Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.loader import FinetuneLoader, Plan
from ftlab.data.sources.in_memory import Rows
from ftlab.data.store import TokenStore, write
from ftlab.rows import Examples, Key, Stored
from ftlab.tasks.causal_lm import CausalLM
from tests.unit.training import Seen, texts, tiny_module, trainer


def collate(examples: Sequence[Stored]) -> Batch:
    longest = max(len(e["input_ids"]) for e in examples)
    ids = torch.full((len(examples), longest), IGNORE)
    for i, example in enumerate(examples):
        ids[i, : len(example["input_ids"])] = torch.tensor(example["input_ids"])
    rows = torch.tensor([int(e["row"][0]) for e in examples])
    return Batch(inputs={"input_ids": ids}, labels={"lm": ids, "few": ids.masked_fill(ids % 3 > 0, IGNORE)}, rows=rows)


def store(folder: Path, count: int) -> TokenStore:
    """Row i is stored as row 100 + i and has 1 to 9 tokens, all equal to i."""
    write(folder / f"s{count}", ({"input_ids": [i] * (1 + i * 5 % 9), "row": 100 + i} for i in range(count)), {})
    return TokenStore(folder / f"s{count}")


def loader(folder: Path, count: int, batch_size: int, **plan: int | bool) -> FinetuneLoader:
    return FinetuneLoader(store(folder, count), collate, Plan(batch_size=batch_size, **{"shuffle": True, **plan}))  # type: ignore[arg-type]


def rows(batches: Sequence[Batch]) -> list[list[int]]:
    return [b.rows.tolist() for b in batches]


def counted(batches: Sequence[Batch]) -> dict[str, int]:
    """The scored positions, counted by hand."""
    return {head: sum(int((b.labels[head] != IGNORE).sum()) for b in batches) for head in ("lm", "few")}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 13, 14])
def test_ranks_together_see_every_row_once_in_as_many_steps(tmp_path: Path, count: int, world: int) -> None:
    shares = [list(loader(tmp_path, count, 2, rank=rank, world=world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == len(loader(tmp_path, count, 2, world=world))
    assert sorted(r for share in shares for many in rows(share) for r in many if r >= 0) == list(range(100, 100 + count))


def test_a_rank_without_a_row_runs_a_batch_that_scores_nothing(tmp_path: Path) -> None:
    first, second, third = (list(loader(tmp_path, 2, 1, rank=rank, world=3)) for rank in range(3))
    assert [len(first), len(second), len(third)] == [1, 1, 1]
    (filler,) = third
    assert filler.rows.tolist() == [-1]
    assert filler.counts() == {"lm": 0, "few": 0}
    assert filler.window == {"lm": 0, "few": 0}
    assert (filler.tokens, filler.index) == (0, ())
    assert filler.inputs["input_ids"].shape[0] == 1


def test_one_rank_of_8_takes_the_rows_of_two_ranks_of_4(tmp_path: Path) -> None:
    one = rows(list(loader(tmp_path, 53, 8, seed=5)))
    two = [rows(list(loader(tmp_path, 53, 4, seed=5, rank=rank, world=2))) for rank in range(2)]
    assert [sorted(b) for b in one] == [sorted(a + b) for a, b in zip(*two, strict=True)]


def test_workers_change_nothing(tmp_path: Path) -> None:
    alone, helped = (loader(tmp_path, 31, 2, window=3, workers=n) for n in (0, 2))
    for _ in range(2):
        for a, b in zip(alone, helped, strict=True):
            assert (a.rows.tolist(), a.window, a.tokens, a.index) == (b.rows.tolist(), b.window, b.tokens, b.index)
            assert torch.equal(a.inputs["input_ids"], b.inputs["input_ids"])


def test_iterating_leaves_the_random_numbers_of_the_run_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    list(loader(tmp_path, 9, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_few_batches_are_made_at_a_time(tmp_path: Path) -> None:
    made: list[int] = []

    def counting(examples: Sequence[Stored]) -> Batch:
        made.append(len(examples))
        return collate(examples)

    batches = iter(FinetuneLoader(store(tmp_path, 40), counting, Plan(batch_size=2)))
    seen = [len(made) for _ in batches]
    assert seen == [8] * 8 + [16] * 8 + [20] * 4


def test_index_and_tokens_are_those_of_the_examples(tmp_path: Path) -> None:
    for batch in loader(tmp_path, 13, 4):
        assert [100 + i for i in batch.index] == batch.rows.tolist()
        assert batch.tokens == int((batch.inputs["input_ids"] != IGNORE).sum())


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("window", "stop"), [(1, None), (3, None), (4, None), (100, None), (3, 5), (4, 2), (4, 8), (3, 1)])
def test_a_window_is_stamped_with_its_own_counts(tmp_path: Path, window: int, stop: int | None, world: int) -> None:
    # 29 rows: 10 micro-batches on one rank, 5 on each of two, the last one short.
    batches = list(loader(tmp_path, 29, 3, window=window, world=world, **({} if stop is None else {"stop": stop})))
    taken = batches[:stop]
    starts = [i for i, b in enumerate(taken) if b.window]
    assert starts == list(range(0, len(taken), window))
    for start in starts:
        assert taken[start].window == counted(taken[start : start + window])


def test_epochs_differ_and_an_abandoned_one_is_over(tmp_path: Path) -> None:
    whole = loader(tmp_path, 11, 2)
    epochs = [rows(list(whole)) for _ in range(3)]
    assert len({str(e) for e in epochs}) == 3
    stopped = loader(tmp_path, 11, 2)
    assert rows(list(islice(stopped, 2))) == epochs[0][:2]
    assert rows(list(stopped)) == epochs[1]
    assert rows(list(islice(stopped, 6))) == epochs[2]


@pytest.mark.parametrize("done", range(7))
def test_windows_keep_their_bounds_when_a_loader_goes_on_inside_one(tmp_path: Path, done: int) -> None:
    again = loader(tmp_path, 15, 2, window=3)
    again.load_state_dict({"epoch": 0, "handed": done})
    rest = list(again)
    bounds = [i for i in range(9) if i == done or (i > done and i % 3 == 0)]
    assert [done + i for i, b in enumerate(rest) if b.window] == [b for b in bounds if b < 8]
    for start, end in zip(bounds, [*bounds[1:], 9], strict=True):
        if start < 8:
            assert rest[start - done].window == counted(rest[start - done : end - done])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [None, 4])
def test_a_loader_goes_on_where_another_was(tmp_path: Path, stop: int | None, workers: int) -> None:
    plan: dict[str, int | bool] = {"window": 2, "workers": workers, **({} if stop is None else {"stop": stop})}
    length = stop or 6
    whole = loader(tmp_path, 11, 2, **plan)
    expected: list[Batch] = []
    states = [whole.state_dict()]
    for _ in range(3):
        for batch in islice(whole, length):
            expected.append(batch)
            states.append(whole.state_dict())
    for done, state in enumerate(states):
        again = loader(tmp_path, 11, 2, **plan)
        again.load_state_dict(state)
        rest: list[Batch] = []
        while len(rest) < len(expected) - done:
            rest += islice(again, length - (done + len(rest)) % length)
        assert rows(rest) == rows(expected[done:])
        if done % length % 2 == 0:
            assert [b.window for b in rest] == [b.window for b in expected[done:]]


class EveryStep(Callback):
    """Saves a checkpoint after every optimiser step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


def test_an_evaluation_is_drawn_alike_every_time(tmp_path: Path) -> None:
    def draw(examples: Examples, index: int, key: Key) -> Stored:
        return {**examples[index], "row": np.array(key)[1:2]}

    drawn = FinetuneLoader(store(tmp_path, 4), collate, Plan(batch_size=2), draw)
    assert [rows(list(drawn)) for _ in range(3)] == [[[0, 0], [0, 0]]] * 3
    drawn.load_state_dict({"epoch": 0, "handed": 2})
    assert rows(list(drawn)) == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("limit", "per_epoch"), [(1.0, 5), (3, 3), (0.7, 3)])
def test_a_fit_that_is_resumed_sees_the_rest_of_the_rows(tmp_path: Path, limit: int | float, per_epoch: int) -> None:
    def fit(seen: Seen, folder: str, ckpt: Path | None = None) -> None:
        keep = EveryStep(tmp_path / folder)
        data = FinetuneData(Rows(items=[{"text": t} for t in texts(18)]), val_split=None, batch_size=4, seed=1)
        runner = trainer(tmp_path, [seen, keep], max_epochs=3, accumulate_grad_batches=2, limit_train_batches=limit)
        runner.fit(tiny_module(tmp_path, CausalLM(cross_documents=False)), datamodule=data, ckpt_path=ckpt)

    whole = Seen()
    fit(whole, "kept")
    assert len(whole.rows) == 3 * per_epoch
    assert len({str(sorted(whole.rows[e * per_epoch : (e + 1) * per_epoch])) for e in range(3)}) == 3
    steps = -(-per_epoch // 2)
    for step in range(1, 3 * steps):
        rest = Seen()
        fit(rest, f"from{step}", tmp_path / "kept" / f"step={step}.ckpt")
        done = step // steps * per_epoch + min(step % steps * 2, per_epoch)
        assert rest.rows == whole.rows[done:]
