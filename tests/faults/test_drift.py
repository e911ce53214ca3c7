"""A run that goes on with something else than it began with: refused, with what differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from ftlab import checkpoint_io
from tests.faults.conftest import Run
from tests.faults.drift_run import FIT, LABELS, accepted, resumed, rewritten, steps, write
from tests.unit.test_checkpoint import vouched

VERIFY, FINGERPRINTS, REST = "ftlab.checkpoint:verify", "ftlab.module:check", "ftlab.continuing:prepare"
OPTIMIZER = "ftlab.continuing:check_optimizer"
"""What refuses, for the negative controls."""

KEYS = (
    ("model.optimizer.init_args.lr", 2e-3, "model.optimizer.lr 0.001, this run 0.002", OPTIMIZER),
    ("model.optimizer.init_args.weight_decay", 0.5, "model.optimizer.weight_decay 0.01, this run 0.5", OPTIMIZER),
    ("model.optimizer.class_path", "torch.optim.Adam", "model.optimizer AdamW, this run Adam", OPTIMIZER),
    ("model.schedule.decay", "constant", "model.schedule.decay 'linear', this run 'constant'", REST),
    ("trainer.precision", "bf16-mixed", "trainer.precision '32-true', this run 'bf16-mixed'", REST),
    ("trainer.gradient_clip_val", 0.5, "trainer.gradient_clip_val 1.0, this run 0.5", REST),
    ("trainer.accumulate_grad_batches", 2, "trainer.accumulate_grad_batches 1, this run 2", REST),
    ("data.batch_size", 3, "data.batch_size 2, this run 3", REST),
    ("seed_everything", 8, "seed_everything 42, this run 8", REST),
)
"""Key, its new value, what is said, and what refuses."""
USUAL = ("model.optimizer.init_args.lr", "trainer.gradient_clip_val")
"""One key for each check."""
SLOW = pytest.mark.slow
REFUSED = [pytest.param(key, value, says, marks=() if key in USUAL else SLOW) for key, value, says, _ in KEYS]
CONTROLS = [pytest.param(key, value, check, marks=() if key in USUAL else SLOW) for key, value, _, check in KEYS]


def test_nothing_changed_goes_on(drifting: Path, warm: Run) -> None:
    assert "withdrawn" not in accepted(warm)
    assert steps(drifting) == 4


class TestBase:
    """D6, D7, D8."""

    def test_other_weights_of_the_same_shape(self, drifting: Path, warm: Run, folder: Path) -> None:
        """D7."""
        (file,) = (folder / "base").glob("*.safetensors")
        state = load_file(file)
        name = min(state)
        state[name].view(-1)[0] += 1e-3
        save_file(state, file, metadata={"format": "pt"})
        said = resumed(warm)
        assert said.startswith("the checkpoint rests on the base ")
        assert "give model.backbone the weights and the revision" in said
        accepted(warm, FINGERPRINTS)

    @pytest.mark.parametrize(
        ("key", "value"),
        [pytest.param("num_hidden_layers", 2, marks=SLOW), pytest.param("num_hidden_layers", 1, marks=SLOW), ("intermediate_size", 64)],
    )
    def test_a_base_of_another_shape(self, drifting: Path, warm: Run, folder: Path, key: str, value: int) -> None:
        """D6: a whole model of its own, whose adapter would fit in part."""
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(folder / "base")
        assert getattr(config, key) != value
        setattr(config, key, value)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
        said = resumed(warm)
        fits = key == "intermediate_size"  # the adapter is on q_proj alone
        assert said.startswith("the checkpoint rests on the base " if fits else "the checkpoint ")
        if fits:
            accepted(warm, FINGERPRINTS)

    def test_another_tokenizer(self, drifting: Path, warm: Run, folder: Path) -> None:
        """D8."""
        path = folder / "base" / "tokenizer.json"
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        first, second = list(vocabulary)[-2:]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        path.write_text(json.dumps(content))
        assert resumed(warm).startswith("the checkpoint rests on the tokenizer ")
        accepted(warm, FINGERPRINTS)

    def test_a_larger_vocabulary(self, drifting: Path, warm: Run) -> None:
        """D8."""
        rewritten(drifting, "model.backbone.new_tokens", ["<new>"])
        assert resumed(warm).startswith("the checkpoint has model.backbone.new_tokens ")

    @SLOW
    def test_a_seed_that_makes_another_fresh_base(self, folder: Path, warm: Run) -> None:
        """D7."""
        write(folder)
        assert warm(*FIT, "--model.backbone.fresh", "true").code == 0
        accepted(warm)
        said = resumed(warm, "--seed_everything", "7", "--override-resume", "seed_everything")
        assert said.startswith("the checkpoint rests on the base ")


class TestModel:
    """D1, D2, D9, K13."""

    @pytest.mark.parametrize(
        ("key", "value", "number"),
        [
            pytest.param("r", "4", 4, marks=SLOW),
            ("alpha", "64", 64.0),
            pytest.param("dropout", "0.5", 0.5, marks=SLOW),
            pytest.param("target_modules", "[q_proj, v_proj]", ["q_proj", "v_proj"], marks=SLOW),
        ],
    )
    def test_another_strategy(self, drifting: Path, warm: Run, key: str, value: str, number: object) -> None:
        """D1, D2: on the command line, and in the run's own file."""
        assert f"tuning.{key} " in resumed(warm, f"--model.tuning.{key}", value)
        # Even where the user lets it differ, the checkpoint does not.
        said = resumed(warm, f"--model.tuning.{key}", value, "--override-resume", "model.*")
        assert said.startswith(f"the checkpoint has model.tuning.{key} ")
        rewritten(drifting, f"model.tuning.init_args.{key}", number)
        assert resumed(warm).startswith(f"the checkpoint has model.tuning.{key} ")
        if key == "alpha":
            accepted(warm, VERIFY)

    @pytest.mark.parametrize(
        "labels",
        [["good", "bad", "so-so"], pytest.param(["bad", "good"], marks=SLOW), pytest.param(["bad", "good", "so-so", "worse"], marks=SLOW)],
    )
    def test_another_label_map(self, drifting: Path, warm: Run, folder: Path, labels: list[str]) -> None:
        """D9."""
        config = yaml.safe_load((drifting / "config.yaml").read_text())
        assert config["model"]["task"]["init_args"]["labels"] == LABELS
        rewritten(drifting, "model.task.init_args.labels", labels)
        if "so-so" not in labels:
            path = folder / "rows.jsonl"
            path.write_text(path.read_text().replace("so-so", "good"))
        said = resumed(warm)
        assert said.startswith("the checkpoint has model.task.labels ")
        assert str(LABELS) in said
        assert str(labels) in said
        if labels[0] == "good":
            accepted(warm, VERIFY)

    @pytest.mark.parametrize("version", [pytest.param(1, marks=SLOW), 99])
    def test_another_format_names_both_versions(self, drifting: Path, warm: Run, version: int) -> None:
        """K13."""
        path = next((drifting / "checkpoints").glob("step-*2.ckpt"))
        content = checkpoint_io.load(path)
        content["ftlab"] |= {"format": version, "version": "9.9"}
        vouched(path, content)
        said = resumed(warm)
        assert said.startswith(f"the checkpoint has format {version} of ftlab 9.9, this is format ")
        if version == 99:
            accepted(warm, VERIFY)


class TestSettings:
    """D3, D4, D10: what Lightning takes from the checkpoint, or forgets, without a word."""

    @pytest.mark.parametrize(("key", "value", "says"), REFUSED)
    def test_a_key_of_the_runs_own_file(self, drifting: Path, warm: Run, key: str, value: object, says: str) -> None:
        """D3, D4, D10, R13."""
        rewritten(drifting, key, value)
        said = resumed(warm)
        assert said.startswith(f"the checkpoint has {says}; leave it out, ")
        assert ("add --" in said) == (not key.startswith(("model.optimizer", "model.schedule")))

    @pytest.mark.parametrize(("key", "value", "check"), CONTROLS)
    def test_without_its_check_the_key_is_taken(self, drifting: Path, warm: Run, key: str, value: object, check: str) -> None:
        """D3, D4, D10, R13, control."""
        rewritten(drifting, key, value)
        accepted(warm, check)

    def test_an_override_is_for_the_key_that_it_names(self, drifting: Path, warm: Run) -> None:
        """D10."""
        rewritten(drifting, "trainer.gradient_clip_val", 0.5)
        assert "trainer.gradient_clip_val" in resumed(warm, "--override-resume", "trainer.precision")
        accepted(warm, more=("--override-resume", "trainer.gradient_clip_val"))
