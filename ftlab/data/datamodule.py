"""The data module: source → views → cached tokens → loaders."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler

import ftlab
from ftlab.data.loader import FinetuneLoader, Plan
from ftlab.data.sources.base import DataSource
from ftlab.data.splits import View, required, resolve
from ftlab.data.store import TokenStore, default_folder, write
from ftlab.data.telling import heard, of_split, placed
from ftlab.errors import ConfigError, DataError, suggest
from ftlab.fingerprints import rows_fingerprint, tokenizer_fingerprint
from ftlab.rows import Row

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)

_CACHE_FORMAT = 1
_NO_LIMIT = 1024
"""Tokens per example where neither the model nor the tokenizer has a limit."""
_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class FinetuneData(LightningDataModule):
    """Rows from a source, as batches for the module's task.

    Args:
        source: Where rows come from.
        train_split: Name of the training split.
        val_split: Name of the validation split, a share of the training split, null for none, or auto for the source's own, else 0.1.
        test_split: Name of the test split, or a share of the training split.
        predict_split: Name of the split that predict runs on; null takes the test split, else the validation split.
        batch_size: Rows per micro-batch on one device.
        eval_batch_size: The same for validation, test and prediction; null takes batch_size.
        max_length: The most tokens a row may have; null takes what the model allows.
        group_by_length: Put rows of like length into the same batch.
        num_workers: Worker processes that prepare batches.
        split_seed: Seed of the cut where a split is a share.
        seed: Seed of the order of rows; null takes seed_everything.
    """

    def __init__(
        self,
        source: DataSource,
        train_split: str = "train",
        val_split: float | str | None = "auto",
        test_split: float | str | None = None,
        predict_split: str | None = None,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        max_length: int | None = None,
        group_by_length: bool = True,
        num_workers: int = 0,
        split_seed: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for key, value, least in (
            ("batch_size", batch_size, 1), ("eval_batch_size", eval_batch_size, 1), ("max_length", max_length, 2),
            ("num_workers", num_workers, 0), ("split_seed", split_seed, 0), ("seed", seed, 0),
        ):  # fmt: skip
            if value is not None and value < least:
                raise ConfigError(f"data.{key} is {value}; it must be a whole number of at least {least}.")
        self.source = source
        self.wanted = {"train": train_split, "val": val_split, "test": test_split, "predict": predict_split}
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.max_length = max_length
        self.group_by_length = group_by_length
        self.num_workers = num_workers
        self.split_seed = split_seed
        self.seed = seed
        self.stores: dict[str, TokenStore] = {}
        self.fingerprints: dict[str, str] = {}

    @property
    def module(self) -> FinetuneModule:
        """The module whose task and tokenizer are used."""
        assert self.trainer is not None, "the data module works under a trainer"
        return cast("FinetuneModule", self.trainer.lightning_module)

    def prepare_data(self) -> None:
        """Tokenise what is not in the cache yet; Lightning calls this on one process per machine."""
        assert self.trainer is not None
        self.module.rehearse()  # rather now than when everything is tokenised
        self._load(str(self.trainer.state.fn.value))  # type: ignore[union-attr]

    def setup(self, stage: str) -> None:
        """Open the cached tokens."""
        self._load(stage)
        if stage == "fit" and "val" not in self.stores and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # an empty list of loaders makes Lightning warn

    def _load(self, stage: str) -> None:
        views = self._views()
        with of_split(str(self.wanted["train"])):
            self.module.task = self.module.task.bind(lambda: self._numbered(self._needed(views, "train", type(self.module.task).__name__)))
        for name in _STAGES[stage]:
            if name == "val" and stage == "fit" and name not in views:
                continue
            view = self._needed(views, name, stage)
            if name not in self.stores:
                self.fingerprints[name] = rows = rows_fingerprint(self.source.fingerprint(view.split), view.key())
                self.stores[name] = self._tokens(view, rows, labelled=name != "predict")

    def _views(self) -> dict[str, View]:
        views = resolve(self.source, self.wanted, self.split_seed)
        if "predict" not in views and (fallback := views.get("test") or views.get("val")):
            views["predict"] = fallback
        return views

    def _needed(self, views: dict[str, View], name: str, why: str) -> View:
        return required(self.source, views, name, self.wanted, why)

    def _numbered(self, view: View) -> Iterator[tuple[int, Row]]:
        return placed(view.rows(self.source))

    def rows(self, name: str) -> Iterator[tuple[int, Row]]:
        """The numbered rows of a stage's split: `train`, `val`, `test` or `predict`."""
        return self._numbered(self._needed(self._views(), name, name))

    def limit(self) -> int:
        """The most tokens a row may have.

        Raises:
            ConfigError: `max_length` is above what the model has positions for.
        """
        context, taken = self.module.backbone.context(self.module.hf_config), self.module.tuning.virtual_tokens()
        if self.max_length is not None:
            if context is not None and self.max_length + taken > context:
                added = f" and model.tuning adds {taken} virtual tokens, {self.max_length + taken} in all" if taken else ""
                raise ConfigError(
                    f"data.max_length is {self.max_length}{added}, but the model has positions for {context} tokens; lower it."
                )
            return self.max_length
        tokenizer_limit = self.module.tokenizer.model_max_length
        known = [n for n in (context, tokenizer_limit if tokenizer_limit < 10**6 else None) if n]
        if known and taken >= min(known):
            raise ConfigError(f"model.tuning adds {taken} virtual tokens, but the model has positions for {min(known)}; take fewer.")
        return min(known) - taken if known else _NO_LIMIT

    def _tokens(self, view: View, rows: str, labelled: bool) -> TokenStore:
        module, limit = self.module, self.limit()
        key = {
            "format": _CACHE_FORMAT,
            "code": code_fingerprint(type(module.task)),
            "rows": rows,
            "task": module.spec()["model.task"],
            "labelled": labelled,
            "tokenizer": self._tokenizer_fingerprint,
            "limit": limit,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        folder = default_folder() / "tokens" / digest
        known = (folder / "meta.json").is_file()
        if not known:
            checked = _Checked(self._numbered(view), module.task.columns(labelled), view.split)
            with of_split(view.split), heard(type(module.task)) as checked.tally["said"]:
                write(folder, module.task.encode(checked, module.tokenizer, limit, labelled), checked.tally)
        store = TokenStore(folder)
        for sentence in cast(list[str], store.meta.get("said", [])) if known else []:
            log.warning("%s", sentence)
        if not len(store):
            rows_read = store.meta["rows"]
            raise DataError(f"split '{view.split}' leaves no example to use, from {rows_read} rows; check the source and its text column.")
        log.info("%s: %s rows, %s examples, %s tokens", view.split, store.meta["rows"], len(store), store.lengths.sum())
        return store

    @cached_property
    def _tokenizer_fingerprint(self) -> str:
        return tokenizer_fingerprint(self.module.tokenizer)

    def train_batches(self) -> int:
        """Micro-batches of one epoch on one rank."""
        assert self.trainer is not None
        return -(-len(self.stores["train"]) // (self.batch_size * self.trainer.world_size))

    def train_dataloader(self) -> FinetuneLoader:
        assert self.trainer is not None
        if any(isinstance(c, GradientAccumulationScheduler) for c in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise ConfigError(
                "trainer.callbacks has a GradientAccumulationScheduler, but all windows of a run have one length; "
                "remove it and set trainer.accumulate_grad_batches."
            )
        limit = self.trainer.limit_train_batches
        stop = limit if isinstance(limit, int) else int(self.train_batches() * limit)
        plan = self._plan(self.batch_size)
        loader = self._loader("train", replace(plan, window=self.trainer.accumulate_grad_batches, shuffle=True, stop=stop))
        # A loader that is made anew within a run (reload_dataloaders_every_n_epochs) goes on; a checkpoint's state comes after this.
        loader.load_state_dict({"epoch": self.trainer.current_epoch, "handed": 0})
        return loader

    def val_dataloader(self) -> FinetuneLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> FinetuneLoader:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> FinetuneLoader:
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, name: str) -> FinetuneLoader:
        return self._loader(name, replace(self._plan(self.eval_batch_size), seed=0))

    def _plan(self, batch_size: int) -> Plan:
        assert self.trainer is not None
        return Plan(
            batch_size=batch_size,
            seed=self.seed if self.seed is not None else int(os.environ.get("PL_GLOBAL_SEED", 0)),
            group=self.group_by_length,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            workers=self.num_workers,
            pin=self.trainer.strategy.root_device.type == "cuda",
        )

    def _loader(self, name: str, plan: Plan) -> FinetuneLoader:
        task, tokenizer = self.module.task, self.module.tokenizer
        return FinetuneLoader(self.stores[name], partial(task.collate, tokenizer=tokenizer), plan, partial(task.draw, tokenizer=tokenizer))


class _Checked:
    """Rows on their way to the task: the first one is checked for columns, all are counted."""

    def __init__(self, rows: Iterator[tuple[int, Row]], columns: tuple[str, ...], split: str) -> None:
        self.rows = rows
        self.columns = columns
        self.split = split
        self.tally: dict[str, Any] = {"rows": 0}

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        for number, row in self.rows:
            if not self.tally["rows"]:
                for column in self.columns:
                    if column not in row:
                        raise DataError(f"split '{self.split}' has no column '{column}', only {', '.join(row)}; {suggest(column, row)}")
            self.tally["rows"] += 1
            yield number, row


def code_fingerprint(kind: type) -> str:
    """A hash of the source files that a task's class is made of, so that a changed plugin does not find its old tokens."""
    digest = hashlib.sha256(ftlab.__version__.encode())
    for base in kind.__mro__:
        file = getattr(sys.modules.get(base.__module__), "__file__", None)
        if file and base.__module__.partition(".")[0] not in sys.stdlib_module_names:
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()
