"""Which rows of a source make a split: a named one, or a share of another cut off with a seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from ftlab.data.sources.base import DataSource
from ftlab.errors import ConfigError, DataError, suggest
from ftlab.rows import Row

log = logging.getLogger(__name__)

_USUAL_VALIDATION = ("validation", "valid", "val", "dev")


@dataclass(frozen=True, kw_only=True)
class View:
    """A split of the source, or a part of it.

    Args:
        split: Name of the split in the source.
        first: Where the part starts in the shuffled rows, as a share of them.
        last: Where it ends; 0 to 1 is the whole split.
        seed: Seed of that shuffle.
    """

    split: str
    first: float = 0.0
    last: float = 1.0
    seed: int = 0

    def key(self) -> dict[str, object]:
        """What the cached tokens depend on."""
        return asdict(self)

    def rows(self, source: DataSource) -> Iterator[tuple[int, Row]]:
        """(number in the source's split, row) of this part, in the source's order.

        Raises:
            DataError: The part has no row.
        """
        if (self.first, self.last) == (0.0, 1.0):
            yield from enumerate(source.rows(self.split))
            return
        count = sum(1 for _ in source.rows(self.split))
        order = np.random.default_rng(self.seed).permutation(count)
        chosen = np.zeros(count, dtype=bool)
        chosen[order[round(self.first * count) : round(self.last * count)]] = True
        if not chosen.any():
            raise DataError(
                f"split '{self.split}' has {count} rows, of which a share of {self.last - self.first:g} is none; "
                "change the share, or name a split in data.val_split or data.test_split (null for none)."
            )
        yield from ((i, row) for i, row in enumerate(source.rows(self.split)) if chosen[i])


def resolve(source: DataSource, wanted: dict[str, float | str | None], seed: int) -> dict[str, View]:
    """The views that a configuration asks for, without those that it does not name and the source does not have.

    Args:
        source: Where the rows are.
        wanted: `train`, `val`, `test`, `predict` → name of a split, share of the training split, `auto`, or None. A training
            split that does not exist is left out with its shares: not every command needs one, and `required` explains.
        seed: Seed of the cut.

    Raises:
        ConfigError: A split does not exist or the shares leave nothing to train on.
    """
    names = source.splits()
    train = str(wanted["train"])
    chosen = {key: value for key, value in wanted.items() if key != "train"}
    if chosen["val"] == "auto":
        chosen["val"] = _automatic(names, train)
    shares = {key: v for key, v in chosen.items() if isinstance(v, float | int)}
    _check_shares(shares)
    views = {key: View(split=_existing(name, names, key)) for key, name in chosen.items() if isinstance(name, str)}
    if train not in names:
        return views
    if "val" in views and views["val"].split == train:
        log.warning("data.val_split and data.train_split are both '%s': the validation loss is that of training rows", train)
    end = 1.0
    for key, share in shares.items():
        views[key] = View(split=train, first=end - share, last=end, seed=seed)
        end -= share
    views["train"] = View(split=train, last=end, seed=seed if shares else 0)
    return views


def _automatic(names: tuple[str, ...], train: str) -> float | str | None:
    """The source's validation split, else a tenth of the training rows, else none."""
    usual = next((n for n in _USUAL_VALIDATION if n in names and n != train), None)
    return usual or (0.1 if train in names else None)


def _check_shares(shares: dict[str, float | int]) -> None:
    if all(0 < share < 1 for share in shares.values()) and sum(shares.values()) < 1:
        return
    written = " and ".join(f"data.{key}_split is {share:g}" for key, share in shares.items())
    raise ConfigError(f"{written}; shares of the training split are above 0 and together below 1, so lower them or name a split.")


def _existing(name: str, names: tuple[str, ...], key: str) -> str:
    if name not in names:
        raise ConfigError(f"data.{key}_split is '{name}', but the source has {', '.join(names) or 'no splits'}; {suggest(name, names)}")
    return name


def required(source: DataSource, views: dict[str, View], key: str, wanted: dict[str, float | str | None], why: str) -> View:
    """The view of a split that a command cannot do without.

    Args:
        source: Where the rows are.
        views: What `resolve` returned.
        key: `train`, `val`, `test` or `predict`.
        wanted: What `resolve` was given.
        why: Who needs it.

    Raises:
        ConfigError: There is none.
    """
    if key in views:
        return views[key]
    names = source.splits()
    found = ", ".join(names) or "no splits"
    if wanted[key] in (None, "auto"):
        raise ConfigError(f"data.{key}_split is not set, which {why} needs; the source has {found}: name one of them.")
    train = str(wanted["train"])
    share = "" if key == "train" else f"data.{key}_split is a share of it, and "
    raise ConfigError(f"data.train_split is '{train}', but the source has {found}; {share}{why} needs it: {suggest(train, names)}")
