"""No configuration can make ftlab import or call what it was not given: a marker file shows that nothing ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.conftest import GOOD, Run

POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "PWNED"]}}
EVIL = {"class_path": "evilmod.Foo"}


@pytest.fixture
def trap(folder: Path) -> Path:
    """The marker that `evilmod`, lying beside the configuration, leaves when it is imported or called."""
    code = "import pathlib\npathlib.Path('PWNED').touch()\nclass Foo: ...\ndef run(*a, **k): pathlib.Path('PWNED').touch()\n"
    (folder / "evilmod.py").write_text(code)
    return folder / "PWNED"


def config(folder: Path, key: str, value: Any) -> list[str]:
    """`good.yaml` with one more value, as options for it."""
    tree: dict[str, Any] = json.loads(json.dumps(GOOD))
    *parents, last = key.split(".")
    inner = tree
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    (folder / "x.yaml").write_text(yaml.safe_dump(tree))
    return ["fit", "--config", "x.yaml"]


BY_NAME = [
    *((key, value) for key in ("model.task", "model.tuning", "data.source", "model.optimizer") for value in (EVIL, POPEN)),
    *((key, "evilmod.Foo") for key in ("model.task", "model.tuning", "data.source", "model.optimizer", "trainer.logger")),
    *(
        (key, "os.system")
        for key in ("trainer.accelerator", "trainer.callbacks", "trainer.plugins", "trainer.profiler", "trainer.strategy")
    ),
    ("trainer.callbacks", [EVIL]),
    ("trainer.callbacks", [{"class_path": "EarlyStopping", "init_args": {"monitor": EVIL}}]),
    ("trainer.logger", [{"class_path": "CSVLogger", "init_args": {"save_dir": POPEN}}]),
    ("trainer.plugins", [POPEN]),
    ("trainer.callbacks", [{"class_path": "LambdaCallback", "init_args": {"on_fit_start": "evilmod.run"}}]),
    ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]),
    ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.lambda_function.LambdaCallback"}]),
    ("model.optimizer", {"class_path": "torch.optim", "init_args": {}}),
    ("model.tuning", "ftlab.registry.Plugin"),
    ("model.schedule", {"class_path": "evilmod.Foo"}),
    ("model.backbone", {"class_path": "evilmod.Foo", "init_args": {"name": "x"}}),
]
"""Refused for the name alone, before torch is imported."""


@pytest.mark.parametrize(("key", "value"), BY_NAME, ids=[f"{key}={json.dumps(value)[:60]}" for key, value in BY_NAME])
def test_a_class_outside_the_allow_list_is_not_imported(cold: Run, folder: Path, trap: Path, key: str, value: Any) -> None:
    result = cold(*config(folder, key, value))
    assert (result.code, result.torch) == (7, False)
    assert result.sentence.startswith(f"{key} names ")
    assert not trap.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--model.tuning", "evilmod.Foo"],
        ["--model.tuning.class_path=evilmod.Foo"],
        ["--model.tuning.help", "evilmod.Foo"],
        ["--model.optimizer.help=evilmod.Foo"],
        ["--trainer.callbacks.help", "evilmod.Foo"],
        ["--trainer.callbacks+=evilmod.Foo"],
        ["--trainer.callbacks", json.dumps([POPEN])],
        ["--trainer.callbacks", "class_path: evilmod.Foo"],
        ["--trainer", json.dumps({"callbacks": [EVIL]})],
        ["--data.source", json.dumps(POPEN)],
    ],
)
def test_the_same_on_the_command_line(cold: Run, trap: Path, options: list[str]) -> None:
    result = cold("fit", "--config", "good.yaml", *options)
    assert (result.code, result.torch) == (7, False)
    assert not trap.exists()


BY_THE_PARSER = [
    # A callable inside a class that is allowed: only the parser knows that it is one.
    ("trainer.callbacks", [{"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1, "avg_fn": "evilmod.run"}}]),
    ("trainer.callbacks", [{"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1, "avg_fn": "os.system"}}]),
    # Another module, reached through one that is allowed.
    ("trainer.logger", {"class_path": "lightning.pytorch.loggers.wandb.os.system", "init_args": {}}),
    ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.timer.pl.callbacks.LambdaCallback"}]),
    ("model.optimizer", "torch.optim.optimizer.functools.partial"),
]


@pytest.mark.parametrize(("key", "value"), BY_THE_PARSER, ids=[json.dumps(value)[:90] for _, value in BY_THE_PARSER])
def test_the_parser_refuses_what_names_cannot_show(warm: Run, folder: Path, trap: Path, key: str, value: Any) -> None:
    result = warm(*config(folder, key, value))
    assert result.code in (2, 7)
    assert result.sentence.startswith(key)
    assert not trap.exists()


def test_a_denied_callable_is_a_security_error(warm: Run, folder: Path, trap: Path) -> None:
    result = warm(*config(folder, *BY_THE_PARSER[0]))
    expected = "trainer.callbacks.avg_fn names evilmod.run, which a configuration may not name; use an installed plugin or --plugin."
    assert (result.code, result.sentence) == (7, expected)


@pytest.mark.parametrize("key", ["model.optimizer", "trainer.plugins", "model.schedule", "trainer.logger"])
def test_no_key_reads_a_further_file(warm: Run, folder: Path, trap: Path, key: str) -> None:
    (folder / "more").write_text(yaml.safe_dump(EVIL))
    result = warm("fit", "--config", "good.yaml", f"--{key}", "./more")
    assert result.code == 2
    assert not trap.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--weights_only", "false"], "weights_only is false, which lets a checkpoint run code while it is read; leave it out."),
        (["--ckpt_path", "https://example.org/x.ckpt"], "ckpt_path is https://example.org/x.ckpt, a checkpoint from elsewhere; download it "
         "and name the local file."),
    ],
)  # fmt: skip
def test_checkpoints_that_could_run_code(warm: Run, options: list[str], sentence: str) -> None:
    result = warm("fit", "--config", "good.yaml", *options)
    assert (result.code, result.sentence) == (7, sentence)


def test_foreign_code_cannot_be_trusted_from_a_file(cold: Run, folder: Path) -> None:
    result = cold(*config(folder, "model.backbone.trust_remote_code", True))
    assert result.code == 2
    assert result.sentence.startswith("model.backbone.trust_remote_code is not a key")
