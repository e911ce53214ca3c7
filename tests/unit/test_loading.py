"""`ftlab.load` and `ftlab export` on runs made by `ftlab fit`."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import ftlab
from ftlab.backbone import ASSETS
from ftlab.checkpoint_io import VerifiedCheckpointIO
from ftlab.errors import CheckpointError, ConfigError, SecurityError
from ftlab.loading import load_run
from ftlab.main import main
from ftlab.samples import random_tokens, sample
from tests.unit.exports import LLAMA, difference, grown, ids, logits

ROWS = [{"text": f"Returns the number of bytes that were written to file {n}."} for n in range(24)]


def config(tuning: dict[str, Any], backbone: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": {
            "backbone": {"name": "ftlab/tiny-llama", **backbone},
            "task": {"class_path": "CausalLM", "init_args": {"block_size": 16}},
            "tuning": tuning,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
        },
        "data": {"source": {"class_path": "Rows", "init_args": {"items": ROWS}}},
        "trainer": {"max_steps": 4, "enable_progress_bar": False, "num_sanity_val_steps": 0},
        "run": {"name": "run"},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, `lora` and `full`."""
    root = tmp_path_factory.mktemp("runs")
    parts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "lora": ({"class_path": "LoRA", "init_args": {"r": 2, "target_modules": ["q_proj"]}}, {"new_tokens": ["<first>", "<second>"]}),
        "full": ({"class_path": "Full", "init_args": {"last_layers": 1}}, {}),
    }
    for name, (tuning, backbone) in parts.items():
        path = root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config(tuning, backbone)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice
            assert main(["fit", "--config", str(path), "--run.root", str(root), "--run.id", name]) == 0
    return root / "run"


@pytest.fixture
def lora(runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs / "lora", tmp_path / "lora")


def stored(run: Path, name: str = "best") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return found


def rewritten(content: dict[str, object], path: Path) -> None:
    """Put another checkpoint in the place of `path`, listed as if the run had written it."""
    path.unlink()
    VerifiedCheckpointIO().save_checkpoint(content, path)


def test_a_full_run_is_its_checkpoint_over_the_base(runs: Path) -> None:
    model, tokenizer = ftlab.load(runs / "full")
    assert not any(m.training for m in model.modules())
    expected = AutoModelForCausalLM.from_pretrained(ASSETS / "tiny-llama")
    untuned = logits(expected, ids(LLAMA))
    expected.load_state_dict({name.removeprefix("model."): t for name, t in stored(runs / "full").items()}, strict=False)
    assert torch.equal(logits(model, ids(LLAMA)), logits(expected, ids(LLAMA)))
    assert not torch.equal(logits(model, ids(LLAMA)), untuned)
    assert tokenizer.pad_token_id is not None


@pytest.mark.parametrize("name", ["lora", "full"])
@pytest.mark.parametrize("merge", [False, True])
def test_export_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, merge: bool) -> None:
    target = tmp_path / "new" / "out"
    assert main(["export", str(runs / name), "--to", str(target), *(["--merge"] if merge else [])]) == 0
    out = capsys.readouterr().out
    assert f"exported to {target}\n" in out
    assert "argmax agreement 100.00%, on " in out
    assert f"(tolerance {'1e-05' if merge else '1e-06'})" in out
    backbone = grown(LLAMA) if name == "lora" else LLAMA
    trained, reopened = ftlab.load(runs / name), ftlab.load(target)
    assert difference(logits(trained.model, ids(backbone)), logits(reopened.model, ids(backbone))) <= (1e-5 if merge else 1e-6)
    assert reopened.tokenizer.get_vocab() == trained.tokenizer.get_vocab()
    card = (target / "README.md").read_text()
    assert "| seed | 42 |" in card
    assert "| data source | Rows |" in card
    assert "| val_loss |" in card
    assert (target / "adapter_config.json").exists() == (name == "lora" and not merge)


def test_which_checkpoint(lora: Path) -> None:
    last = lora / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    first = next(name for name in saved["state_dict"] if "lora_B" in name)
    saved["state_dict"][first] += 1.0
    rewritten(saved, last)
    tokens = ids(grown(LLAMA))
    best, newest, named = (logits(ftlab.load(lora, c).model, tokens) for c in ("best", "last", str(last)))
    assert torch.equal(newest, named)
    assert not torch.equal(best, newest)
    with pytest.raises(
        ConfigError, match=r"--checkpoint other of .* is no file \(other\); its checkpoints are: best.ckpt, last.ckpt, step"
    ):
        ftlab.load(lora, "other")


def test_a_damaged_or_changed_checkpoint(lora: Path, tmp_path: Path) -> None:
    path = lora / "checkpoints" / "best.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError):
        ftlab.load(lora)
    path.write_bytes(whole)
    text = (lora / "config.yaml").read_text()
    (lora / "config.yaml").write_text(text.replace("r: 2", "r: 4"))
    with pytest.raises(CheckpointError, match=r"model\.tuning\.r"):
        ftlab.load(lora)


def test_a_config_of_a_run_is_not_trusted(lora: Path) -> None:
    text = (lora / "config.yaml").read_text()
    (lora / "config.yaml").write_text(text.replace("class_path: torch.optim.AdamW", "class_path: subprocess.Popen"))
    with pytest.raises(SecurityError, match=r"names subprocess\.Popen"):
        ftlab.load(lora)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere", "--to", "out"], 2, "nowhere holds no config.yaml, so it is no run"),
        (["RUN", "--to", "."], 2, "exists and is not an empty folder"),
        (["RUN"], 2, "--to"),
        (["RUN", "--to", "out", "--dtype", "int8"], 2, "int8"),
        (["RUN", "--to", "out", "--checkpoint", "best.ckpt"], 2, "is no file (best.ckpt); its checkpoints are: best.ckpt, last.ckpt, step"),
    ],
)
def test_refused_before_anything_is_loaded(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["export", *(str(runs / "lora") if a == "RUN" else a for a in arguments)]) == code
    assert sentence in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_sample_rows(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = load_run(runs / "full")
    (inputs,) = sample(run.module, run.data)
    texts = run.module.tokenizer.batch_decode(inputs["input_ids"])
    assert any("number of bytes" in text for text in texts)
    object.__setattr__(run.data.source, "items", [])
    run.data.stores.clear()
    (blind,) = sample(run.module, run.data)
    assert "compared on random tokens" in caplog.text
    assert torch.equal(blind["input_ids"], random_tokens(run.module)["input_ids"])
    assert int(blind["input_ids"].max()) == 3071


def test_a_local_model_loads_as_well(runs: Path) -> None:
    model, tokenizer = ftlab.load(ASSETS / "tiny-bert")
    assert type(model).__name__.startswith("Bert")
    assert len(tokenizer) > 0
    with pytest.raises(ConfigError, match="is no folder; name a run"):
        ftlab.load("nowhere")


def test_export_of_a_run_whose_weights_are_not_numbers(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lora / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)
    next(t for n, t in saved["state_dict"].items() if "lora_B" in n).fill_(float("nan"))
    rewritten(saved, path)
    assert main(["export", str(lora), "--to", str(tmp_path / "out")]) == 4
    assert not (tmp_path / "out").exists()


def test_records_name_no_code(runs: Path, tmp_path: Path) -> None:
    main(["export", str(runs / "lora"), "--to", str(tmp_path / "out")])
    path = tmp_path / "out" / "ftlab.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "auto_class": "pipeline"}))
    with pytest.raises(CheckpointError, match="'pipeline' is no auto class"):
        ftlab.load(tmp_path / "out")
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert any(name.endswith("embed_tokens.token_adapter.trainable_tokens_delta") for name in weights)
    save_file(weights, tmp_path / "copy.safetensors")
