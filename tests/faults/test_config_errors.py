"""Wrong values: one sentence that names the key, what it was and what is allowed, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.faults.conftest import Run, names

TYPES = [
    ("--model.tuning.r zero", "model.tuning.r is 'zero'; it must be a whole number."),
    ("--model.tuning.r 8.5", "model.tuning.r is 8.5; it must be a whole number."),
    ("--model.tuning.r true", "model.tuning.r is True; it must be a whole number."),
    ("--model.tuning.bias som", "model.tuning.bias is 'som'; it must be one of none, all, lora_only."),
    ("--model.tuning.layers x", "model.tuning.layers is 'x'; it must be a list of whole numbers or null."),
    ("--model.task.block_size 3.2", "model.task.block_size is 3.2; it must be a whole number or null."),
    ("--data.batch_size 2.5", "data.batch_size is 2.5; it must be a whole number."),
    ("--data.source.items 3", "data.source.items is 3; it must be a list or key: value pairs."),
    ("--model.schedule.decay lin", "model.schedule.decay is 'lin'; it must be one of linear, cosine, constant."),
    ("--model.backbone.dtype fp32", "model.backbone.dtype is 'fp32'; it must be one of auto, float32, bfloat16, float16."),
    ("--model.backbone.fresh maybe", "model.backbone.fresh is 'maybe'; it must be true or false."),
    ("--trainer.max_epochs many", "trainer.max_epochs is 'many'; it must be a whole number or null."),
    ("--model.optimizer torch.optim.AdamX", "model.optimizer is torch.optim.AdamX, which does not exist; did you mean Adamax or Adam or "
     "AdamW?"),
    ("-x", "unrecognized arguments: -x; `--help` lists the options."),
]  # fmt: skip

VALUES = [
    ("--model.tuning.r 0", "model.tuning.r is 0; a rank is a whole number of at least 1."),
    ("--model.tuning.r -1", "model.tuning.r is -1; a rank is a whole number of at least 1."),
    ("--model.tuning.alpha 0", "model.tuning.alpha is 0; it must be above 0, or the adapter has no effect and no gradient."),
    ("--model.tuning.dropout 1.5", "model.tuning.dropout is 1.5; it is a probability, at least 0 and below 1."),
    ("--data.batch_size 0", "data.batch_size is 0; it must be a whole number of at least 1."),
    ("--data.max_length 4096", "data.max_length is 4096, but the model has positions for 512 tokens; lower it."),
    ("--data.val_split valid", "data.val_split is 'valid', but the source has train; allowed: train."),
    ("--trainer.max_steps 0", "trainer.max_steps is 0, which trains nothing; set it above 0, or use `ftlab validate` for the "
     "untuned model."),
    ("--trainer.max_epochs 0", "trainer.max_epochs is 0, which trains nothing; set it above 0, or use `ftlab validate` for the untuned "
     "model."),
    ("--trainer.limit_train_batches 0", "trainer.limit_train_batches is 0, which trains nothing; set it above 0, or use `ftlab validate` "
     "for the untuned model."),
    ("--trainer.accumulate_grad_batches 0", "trainer.accumulate_grad_batches is 0; it must be at least 1."),
    ("--trainer.gradient_clip_val -1", "trainer.gradient_clip_val is -1; it must be a finite number above 0, or null for no clipping."),
    ("--trainer.precision 16-mixed", "trainer.precision is 16-mixed, ten times slower on a CPU than bf16-mixed; use bf16-mixed or "
     "32-true."),
    ("--trainer.precision 64-true", "trainer.precision is 64-true, which no pretrained weights have and no task computes in; use "
     "32-true."),
    ("--ckpt_path no.ckpt", "ckpt_path is no.ckpt, which is no file; name a checkpoint such as runs/NAME/ID/checkpoints/best.ckpt."),
    ("--run.name ../x", "run.name is '../x'; use letters, digits, '.', '_' and '-', at most 64, a letter or digit first."),
    ("--model.backbone.name ./none", "model.backbone.name ./none is not a folder; write an existing folder or a hub id of the form "
     "org/name."),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), [*TYPES, *VALUES], ids=[options for options, _ in (*TYPES, *VALUES)])
def test_a_wrong_value_is_one_sentence(warm: Run, options: str, sentence: str) -> None:
    result = warm("fit", "--config", "good.yaml", *options.split(" ", 1))
    assert (result.code, result.sentence, result.err.count("\n")) == (2, sentence, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["lr", "nan"], "model.optimizer.lr is 'nan'; it must be a number or Tensor."),
        (["lr", ".nan"], "model.optimizer.lr is nan; it must be a finite number above 0."),
        (["lr", ".inf"], "model.optimizer.lr is inf; it must be a finite number above 0."),
        (["lr", "-1"], "model.optimizer.lr is -1.0; it must be a finite number above 0."),
        (["lrr", "1"], "model.optimizer.lrr is not an argument of AdamW; did you mean lr?"),
        (["betas", "[2, 3]"], "model.optimizer refuses its arguments: Invalid beta parameter at index 0: 2.0; "
         "`ftlab fit --model.optimizer.help NAME` lists them."),
    ],
)  # fmt: skip
def test_a_wrong_optimiser(warm: Run, options: list[str], sentence: str) -> None:
    result = warm("fit", "--config", "good.yaml", "--model.optimizer", "AdamW", f"--model.optimizer.{options[0]}", options[1])
    assert (result.code, result.sentence, result.err.count("\n")) == (2, sentence, 1)


def test_what_is_missing_is_listed_with_its_choices(warm: Run) -> None:
    nothing = warm("fit")
    assert nothing.code == 2
    assert nothing.sentence.startswith(
        "model.backbone.name and model.task and model.tuning and data.source must be set; "
        f"model.task takes one of {names('tasks')}; model.tuning takes one of {names('strategies')}; "
        f"data.source takes one of {names('data')}."
    )
    field = warm("fit", "--config", "good.yaml", "--data.source", "Csv")
    assert (field.code, field.sentence) == (2, "data.source.path must be set; write it in the YAML or as an option.")


def test_early_stopping_without_a_validation_split(warm: Run) -> None:
    result = warm("fit", "--config", "good.yaml", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val_loss")
    expected = "trainer.callbacks has EarlyStopping on val_loss, but data.val_split is null; set it, or watch train_loss."
    assert (result.code, result.sentence) == (2, expected)


def test_one_wrong_target_beside_a_right_one(warm: Run) -> None:
    result = warm("fit", "--config", "good.yaml", "--model.tuning.target_modules", '["q_proj", "qproj"]')
    assert result.code == 2
    assert result.sentence.startswith("model.tuning.target_modules has 'qproj', which matches no linear module; did you mean q_proj or ")


def test_a_backbone_folder_without_weights(warm: Run, folder: Path) -> None:
    from ftlab.backbone import ASSETS

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / "bare").mkdir(exist_ok=True)
        (folder / "bare" / name).write_bytes((ASSETS / "tiny-llama" / name).read_bytes())
    result = warm("fit", "--config", "good.yaml", "--model.backbone.name", "./bare")
    expected = (
        "model.backbone.name ./bare holds no weights; it needs a model.safetensors file, "
        "or set model.backbone.fresh to true for random weights."
    )
    assert (result.code, result.sentence) == (2, expected)


def test_a_run_folder_that_cannot_be_written(warm: Run, folder: Path) -> None:
    (folder / "file").touch()
    result = warm("fit", "--config", "good.yaml", "--run.root", "file", "--run.id", "x")
    expected = f"run folder {folder}/file/good/x cannot be written (Not a directory); set run.root to a folder that can."
    assert (result.code, result.sentence) == (8, expected)


def test_a_gpu_that_is_not_there(warm: Run) -> None:
    result = warm("fit", "--config", "good.yaml", "--trainer.accelerator", "gpu", env={"CUDA_VISIBLE_DEVICES": ""})
    expected = "trainer.accelerator is gpu, but torch sees no GPU; use cpu, or check the driver."
    assert (result.code, result.sentence) == (6, expected)


def test_a_hub_that_does_not_answer(fresh: Command, folder: Path) -> None:
    # A process of its own: the endpoint is read when huggingface_hub is imported.
    where = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hub")}
    result = fresh("fit", "--config", "good.yaml", "--model.backbone.name", "some/model", env=where)
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines)) == (6, 2)
    assert lines[0].startswith("http://127.0.0.1:9 does not answer (")
    assert lines[1].startswith("ftlab: error: some/model: the Hugging Face hub cannot be reached and the local cache does not hold its ")
    assert lines[1].endswith("; check the network, or name a local folder.")


def test_no_run_folder_is_left_behind(warm: Run, folder: Path) -> None:
    assert warm("fit", "--config", "good.yaml", "--model.tuning.r", "0").code == 2
    assert not list(folder.glob("runs/*/*"))


def test_options_that_are_right_reach_the_run(warm: Run) -> None:
    # Every way of writing an option, none of which preflight may misjudge.
    result = warm(
        "fit", "--config", "good.yaml", "--model.tuning", json.dumps({"class_path": "LoRA", "init_args": {"r": 4}}),
        "--model.tuning.alpha=2",
        "--model.tuning.target_modules", '["q_proj","v_proj"]', "--model.tuning.target_modules+=k_proj",
        "--model.tuning.rank_pattern", "{q_proj: 3}", "--trainer.max_steps", "-1", "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor", "train_loss", "--trainer.callbacks+=LearningRateMonitor", "--trainer.logger", "CSVLogger",
        "--trainer.logger.name=x", "--model.optimizer=AdamW", "--model.optimizer.lr", "1e-3", "--data.val_split=0.5",
        "--model.backbone.revision=null", "--trainer", '{"max_epochs": 2}', "--print_config",
    )  # fmt: skip
    import yaml

    assert result.code == 0, result.err
    config = yaml.safe_load(result.out)
    tuning = config["model"]["tuning"]["init_args"]
    assert (tuning["r"], tuning["alpha"], tuning["target_modules"]) == (4, 2.0, ["q_proj", "v_proj", "k_proj"])
    assert tuning["rank_pattern"] == {"q_proj": 3}
    assert [c["class_path"].rpartition(".")[2] for c in config["trainer"]["callbacks"]] == ["EarlyStopping", "LearningRateMonitor"]
    assert (config["trainer"]["max_steps"], config["trainer"]["max_epochs"], config["data"]["val_split"]) == (-1, 2, 0.5)
    assert config["trainer"]["logger"]["init_args"]["name"] == "x"
    assert config["model"]["optimizer"]["init_args"]["lr"] == 1e-3


def test_a_regular_expression_is_not_taken_for_yaml(warm: Run) -> None:
    import yaml

    result = warm("fit", "--config", "good.yaml", "--model.tuning.target_modules", r"[qv]_proj|.*\.[qv]_proj", "--print_config")
    assert yaml.safe_load(result.out)["model"]["tuning"]["init_args"]["target_modules"] == r"[qv]_proj|.*\.[qv]_proj"


def test_later_files_win_and_the_rest_stays(warm: Run, folder: Path) -> None:
    import yaml

    (folder / "over.yaml").write_text("model: {tuning: {init_args: {alpha: 3}}}\ntrainer: {max_steps: 7}\n")
    result = warm("fit", "--config", "good.yaml", "--config", "over.yaml", "--print_config")
    config = yaml.safe_load(result.out)
    assert (config["model"]["tuning"]["init_args"]["r"], config["model"]["tuning"]["init_args"]["alpha"]) == (2, 3.0)
    assert config["trainer"]["max_steps"] == 7


@pytest.mark.parametrize(
    "arguments", [["fit", "--help"], ["fit", "--model.tuning.help", "LoRA"], ["fit", "--model.optimizer.help", "AdamW"]]
)
def test_help_is_printed(warm: Run, arguments: list[str]) -> None:
    result = warm(*arguments)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("usage: ")
    if "LoRA" in arguments:
        assert "Rank of the added product. (type: int, default: 8)" in result.out
