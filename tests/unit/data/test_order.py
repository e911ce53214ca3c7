from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from ftlab.data.order import Index, epoch_batches, rank_share


def log_normal(count: int) -> Index:
    """The ragged text of the speed protocol: median 110 tokens, sigma 0.75, at most 1024."""
    drawn = np.exp(np.random.default_rng(0).normal(np.log(110), 0.75, count))
    return np.minimum(drawn, 1024).astype(np.int64)


def batches(lengths: Index, batch: int, epoch: int = 0, seed: int = 0, shuffle: bool = True, group: bool = True) -> list[list[int]]:
    return [b.tolist() for b in epoch_batches(lengths, batch, seed=seed, epoch=epoch, shuffle=shuffle, group=group)]


def padding(lengths: Index, batch: int, world: int = 1, group: bool = True) -> float:
    """Padded positions per real token, over all ranks."""
    whole = epoch_batches(lengths, batch * world, seed=0, epoch=0, shuffle=True, group=group)
    shares = [lengths[rank_share(b, r, world)] for b in whole for r in range(world)]
    return float(sum(int(s.max()) * len(s) for s in shares if len(s)) / lengths.sum() - 1)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1601, 3333])
def test_every_row_comes_once(count: int, group: bool, shuffle: bool) -> None:
    found = batches(log_normal(count), 8, shuffle=shuffle, group=group)
    assert sorted(chain.from_iterable(found)) == list(range(count))
    assert [len(b) for b in found] == [8] * (count // 8) + [count % 8] * (count % 8 > 0)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    lengths = log_normal(500)
    orders = {(seed, epoch): batches(lengths, 8, epoch, seed) for seed in (0, 1) for epoch in (0, 1)}
    assert all(batches(lengths, 8, epoch, seed) == found for (seed, epoch), found in orders.items())
    assert len({str(found) for found in orders.values()}) == 4


@pytest.mark.parametrize("count", [400, 5000])
def test_a_row_meets_other_rows_in_the_next_epoch(count: int) -> None:
    lengths = log_normal(count)
    first, second = ({frozenset(b) for b in batches(lengths, 8, epoch)} for epoch in (0, 1))
    assert len(first & second) < 0.06 * len(first)


def test_grouped_batches_do_not_come_by_length() -> None:
    lengths = log_normal(5000)
    means = [float(lengths[b].mean()) for b in batches(lengths, 8)]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.1
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("count", "batch", "world"), [(1000, 8, 1), (2000, 16, 1), (10_000, 8, 1), (10_000, 32, 1), (10_000, 8, 2), (10_000, 16, 3)]
)
def test_little_padding_on_ragged_text(count: int, batch: int, world: int) -> None:
    lengths = log_normal(count)
    assert padding(lengths, batch, world) <= 0.06
    assert padding(lengths, batch, world, group=False) > 0.5


def test_one_rank_and_two_take_the_same_rows_per_step() -> None:
    lengths = log_normal(103)
    one = epoch_batches(lengths, 8, seed=3, epoch=2, shuffle=True, group=True)
    two = epoch_batches(lengths, 4 * 2, seed=3, epoch=2, shuffle=True, group=True)
    for whole, halves in zip(one, two, strict=True):
        parts = [rank_share(halves, r, 2).tolist() for r in range(2)]
        assert sorted(chain(*parts)) == sorted(whole.tolist())


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", range(13))
def test_ranks_share_a_batch_evenly(count: int, world: int) -> None:
    rows = np.arange(count)
    parts = [rank_share(rows, r, world).tolist() for r in range(world)]
    assert sorted(chain(*parts)) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_first_batches_of_an_evaluation_are_a_fair_sample() -> None:
    lengths = log_normal(4000)
    found = batches(lengths, 8, shuffle=False)
    first = lengths[list(chain.from_iterable(found[:50]))]
    assert abs(first.mean() / lengths.mean() - 1) < 0.25
    assert found == batches(lengths, 8, epoch=5, seed=9, shuffle=False)
