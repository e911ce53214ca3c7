from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from ftlab.data.datamodule import FinetuneData, code_fingerprint
from ftlab.data.sources.in_memory import Rows, Value
from ftlab.errors import ConfigError, DataError, StorageError
from ftlab.fingerprints import tokenizer_fingerprint
from ftlab.tasks.base import Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.next_sentence import NextSentencePrediction
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.testing.tokenizer import byte_tokenizer
from tests.conftest import Command
from tests.unit.training import Seen, texts, tiny_module, trainer

LABELLED: list[dict[str, Value]] = [{"text": t, "label": ["no", "yes"][i % 2]} for i, t in enumerate(texts(12))]
PLAIN: list[dict[str, Value]] = [{"text": t} for t in texts(12)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def stores(cache: Path) -> set[str]:
    return {p.name for p in cache.iterdir()} if cache.is_dir() else set()


def prepare(
    root: Path, items: object = PLAIN, task: Task | None = None, stage: str = "fit", family: str = "llama", **settings: Any
) -> FinetuneData:
    """A data module that has read its rows, as under `trainer.<stage>`."""
    data = FinetuneData(Rows(items=items), **settings)  # type: ignore[arg-type]
    module = tiny_module(root, task or CausalLM(), family)
    runner = trainer(root)
    runner.strategy.connect(module)
    data.trainer = runner
    data.setup(stage)
    return data


def test_the_same_start_makes_no_new_tokens(tmp_path: Path, own_cache: Path) -> None:
    prepare(tmp_path)
    first = stores(own_cache)
    assert len(first) == 2  # train and val
    for settings in ({}, {"batch_size": 3}, {"seed": 9}, {"num_workers": 2}, {"group_by_length": False}, {"eval_batch_size": 5}):
        prepare(tmp_path, **settings)
    assert stores(own_cache) == first


@pytest.mark.parametrize(
    "change",
    [
        {"items": [*PLAIN[:-1], {"text": "another text"}]},
        {"val_split": 0.25},
        {"split_seed": 1},
        {"task": CausalLM(block_size=16)},
        {"task": CausalLM(add_eos=False)},
        {"max_length": 32},
        {"family": "bert", "task": SequenceClassification(labels=["no", "yes"]), "items": LABELLED},
    ],
    ids=["text", "cut", "seed of the cut", "block size", "end token", "length", "task"],
)
def test_what_decides_the_tokens_makes_new_ones(tmp_path: Path, own_cache: Path, change: dict[str, Any]) -> None:
    prepare(tmp_path)
    first = stores(own_cache)
    prepare(tmp_path, **change)
    assert len(stores(own_cache) - first) == 2


def test_the_fingerprint_of_a_tokenizer_is_its_rules_and_not_its_last_call() -> None:
    plain, pairs, grown = byte_tokenizer(pairs=False), byte_tokenizer(pairs=True), byte_tokenizer(pairs=False)
    grown.add_tokens(["<new>"])
    before = tokenizer_fingerprint(plain)
    plain(["one", "two words"], truncation=True, max_length=3, padding=True)
    assert tokenizer_fingerprint(plain) == before == tokenizer_fingerprint(byte_tokenizer(pairs=False))
    assert len({before, tokenizer_fingerprint(pairs), tokenizer_fingerprint(grown)}) == 3


def test_the_code_of_a_task_is_part_of_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    found = set()
    for text in ("class Mine: x = 1\n", "class Mine: x = 22\n"):
        (tmp_path / "a_plugin_of_mine.py").write_text(text)
        importlib.invalidate_caches()
        sys.modules.pop("a_plugin_of_mine", None)
        found.add(code_fingerprint(importlib.import_module("a_plugin_of_mine").Mine))
    assert len(found) == 2


def test_changed_code_makes_new_tokens(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    first = stores(own_cache)
    monkeypatch.setattr("ftlab.data.datamodule.code_fingerprint", lambda kind: "another version")
    prepare(tmp_path)
    assert len(stores(own_cache) - first) == 2


def test_a_second_run_of_the_command_tokenises_nothing(ftlab: Command, tmp_path: Path, own_cache: Path) -> None:
    recorder = tmp_path / "recording.py"
    recorder.write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\nfrom ftlab.tasks.causal_lm import CausalLM\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Recording(CausalLM):\n    '''Counts how often it encodes.'''\n\n"
        "    def encode(self, rows, tokenizer, max_length, labelled):\n"
        "        with Path('calls').open('a') as file:\n            file.write('x')\n"
        "        yield from super().encode(rows, tokenizer, max_length, labelled)\n"
    )
    (tmp_path / "rows.txt").write_text("\n".join(texts(12)))
    words = (
        "fit", "--plugin", str(recorder), "--model.backbone.name", "ftlab/tiny-llama", "--model.task", "Recording",
        "--model.tuning", "LoRA", "--data.source", "TextFile", "--data.source.path", "rows.txt", "--data.val_split", "0.25",
        "--trainer.max_steps", "1",
    )  # fmt: skip
    for extra in ((), ("--data.batch_size", "2", "--seed_everything", "7", "--data.num_workers", "1")):
        done = ftlab(*words, *extra)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text() == "xx"  # train and val, once
    assert len(stores(own_cache)) == 2


def test_a_cache_that_cannot_be_written_is_exit_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match=r"the token cache .* cannot be written") as caught:
        prepare(tmp_path)
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(
    ("items", "stage", "settings", "said"),
    [
        ({"test": PLAIN}, "fit", {}, "data.train_split is 'train', but the source has test; fit needs it"),
        ({"trian": PLAIN}, "fit", {}, "did you mean trian?"),
        ({"test": PLAIN}, "validate", {}, "data.val_split is not set, which validate needs; the source has test"),
        ({"test": PLAIN}, "validate", {"val_split": 0.1}, "the source has test; data.val_split is a share of it, and validate"),
        ({"train": PLAIN}, "validate", {"val_split": None}, "data.val_split is not set, which validate needs"),
        ({"train": PLAIN, "test": PLAIN}, "test", {}, "data.test_split is not set, which test needs; the source has train, test"),
        ({"other": PLAIN}, "predict", {}, "data.predict_split is not set, which predict needs; the source has other"),
        ({"train": PLAIN}, "fit", {"val_split": "dev"}, "data.val_split is 'dev', but the source has train"),
    ],
)
def test_a_split_that_a_command_needs(tmp_path: Path, items: object, stage: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, items, stage=stage, **settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(("stage", "key"), [("validate", "val_split"), ("test", "test_split"), ("predict", "predict_split")])
def test_no_training_split_where_none_is_needed(tmp_path: Path, stage: str, key: str) -> None:
    task = SequenceClassification(labels=["no", "yes"])
    data = prepare(tmp_path, {"held": LABELLED}, task, stage, "bert", **{key: "held"})
    assert [len(store) for store in data.stores.values()] == [12]


def test_labels_that_only_training_rows_could_tell(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train_split is 'train', but the source has held; SequenceClassification needs it"):
        prepare(tmp_path, {"held": LABELLED}, SequenceClassification(), "test", "bert", test_split="held")


def test_predict_needs_no_label_column(tmp_path: Path) -> None:
    data = prepare(tmp_path, {"train": LABELLED, "new": PLAIN}, SequenceClassification(), "predict", "bert", predict_split="new")
    assert [s["label"].tolist() for s in (data.stores["predict"][i] for i in range(12))] == [[-100]] * 12


@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", 0), ("eval_batch_size", 0), ("max_length", 1), ("num_workers", -1), ("seed", -1), ("split_seed", -3)]
)
def test_numbers_out_of_range(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{key} is {value}; it must be a whole number of at least"):
        FinetuneData(Rows(items=PLAIN), **{key: value})  # type: ignore[arg-type]


def test_rows_that_leave_no_example(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train' leaves no example to use, from 2 rows"):
        prepare(tmp_path, [{"text": " "}, {"text": ""}], CausalLM(empty="skip"), val_split=None)


def test_no_validation_split_trains_and_checkpoints(ftlab: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(texts(12)))
    done = ftlab(
        "fit", "--model.backbone.name", "ftlab/tiny-llama", "--model.task", "CausalLM", "--model.tuning", "LoRA",
        "--data.source", "TextFile", "--data.source.path", "rows.txt", "--data.val_split", "null",
        "--trainer.max_epochs", "1", "--run.id", "one", "--run.name", "r",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "r" / "one" / "checkpoints" / "last.ckpt").is_file()


def test_windows_that_change_their_length_are_refused(tmp_path: Path) -> None:
    runner = trainer(tmp_path, [GradientAccumulationScheduler({0: 2, 1: 4})])
    with pytest.raises(ConfigError, match="GradientAccumulationScheduler"):
        runner.fit(tiny_module(tmp_path, CausalLM()), datamodule=FinetuneData(Rows(items=PLAIN), val_split=None))


def test_a_loader_that_is_made_anew_goes_on_with_the_next_epoch(tmp_path: Path) -> None:
    def rows(**settings: int) -> list[list[int]]:
        seen = Seen()
        data = FinetuneData(Rows(items=PLAIN), val_split=None, batch_size=4)
        trainer(tmp_path, [seen], max_epochs=3, **settings).fit(tiny_module(tmp_path, CausalLM(cross_documents=False)), datamodule=data)
        return seen.rows

    assert rows(reload_dataloaders_every_n_epochs=1) == rows()


@pytest.mark.parametrize("make", [lambda d: d.val_dataloader(), lambda d: d.test_dataloader(), lambda d: d.predict_dataloader()])
def test_evaluation_keeps_its_order(tmp_path: Path, make: Callable[[FinetuneData], Any]) -> None:
    names: dict[str, Any] = {"val_split": "train", "test_split": "train", "predict_split": "train", "eval_batch_size": 5}
    data = prepare(tmp_path, PLAIN, stage="fit", **names)
    for stage in ("test", "predict"):
        data.setup(stage)
    loader = make(data)
    first, second = ([b.rows.tolist() for b in loader] for _ in range(2))
    assert first == second
    assert not any(b.window == {} for b in loader)


def test_what_was_read_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ftlab"):
        prepare(tmp_path, task=CausalLM(cross_documents=False), val_split=None)
    tokens = sum(len(byte_tokenizer(pairs=False)(t)["input_ids"]) + 1 for t in texts(12))
    blocks = sum(-(-len(byte_tokenizer(pairs=False)(t)["input_ids"]) // 63) for t in texts(12))
    overlap = blocks - 12
    assert f"train: 12 rows, {blocks} examples, {tokens + overlap} tokens" in caplog.text


def test_what_a_task_said_of_its_rows_is_said_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [*LABELLED, {"text": " ", "label": "no"}]
    task = SequenceClassification(empty="skip")
    for _ in range(2):
        caplog.clear()
        prepare(tmp_path, items, task, family="bert", val_split=None)
        assert caplog.text.count("1 rows without text were skipped") == 1


def test_errors_of_rows_name_the_split(tmp_path: Path) -> None:
    splits = {"train": LABELLED, "dev": [{"text": "a", "label": "no"}, {"text": "b", "label": "neither"}]}
    with pytest.raises(DataError, match=r"split 'dev': row 1 has the label 'neither'"):
        prepare(tmp_path, splits, SequenceClassification(), family="bert", val_split="dev")
    with pytest.raises(DataError, match=r"split 'train': row 1 has the label 1 while"):
        prepare(tmp_path, [{"text": "a", "label": "no"}, {"text": "b", "label": 1}], SequenceClassification(), family="bert")


def test_a_model_that_the_task_has_not_is_refused_before_its_rows_are_read(tmp_path: Path, own_cache: Path) -> None:
    module, runner = tiny_module(tmp_path, NextSentencePrediction()), trainer(tmp_path)
    with pytest.raises(ConfigError, match="is a llama model, which AutoModelForNextSentencePrediction does not offer"):
        runner.fit(module, FinetuneData(Rows(items=PLAIN)))
    assert not stores(own_cache)


def test_the_seed_of_the_run_orders_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def order(seed: int | None, of_run: str | None) -> list[list[int]]:
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
        if of_run is not None:
            monkeypatch.setenv("PL_GLOBAL_SEED", of_run)
        data = prepare(tmp_path, val_split=None, batch_size=2, seed=seed, task=CausalLM(cross_documents=False))
        return [b.rows.tolist() for b in data.train_dataloader()]

    assert order(None, "5") == order(5, "8") == order(5, None)
    assert order(None, "5") != order(None, "6")
