"""Wrong names are found before torch is imported: one sentence, the nearest right name, exit code 2."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Command
from tests.faults.conftest import Run, names

BACKBONE_KEYS = "activation_checkpointing, attention, dtype, fresh, name, new_tokens, pad_token, pickled_weights, revision, tokenizer"
LORA_FIELDS = "alpha, alpha_pattern, bias, dora, dropout, init, layers, lora_plus_ratio, r, rank_pattern, rslora, target_modules"

SENTENCES = [
    ("--model.tuning Lora", "model.tuning is 'Lora', which is not one of the strategies installed; did you mean LoRA?"),
    ("--model.tuning=Lora", "model.tuning is 'Lora', which is not one of the strategies installed; did you mean LoRA?"),
    ("--model.tuning.class_path Lora", "model.tuning is 'Lora', which is not one of the strategies installed; did you mean LoRA?"),
    ("--model.tuning.help Lora", "model.tuning is 'Lora', which is not one of the strategies installed; did you mean LoRA?"),
    ("--model.task CausalLm", "model.task is 'CausalLm', which is not one of the tasks installed; did you mean CausalLM?"),
    ("--model.tuning LоRA", r"model.tuning is 'L\u043eRA', which is not one of the strategies installed; did you mean LoRA or QLoRA?"),
    ("--model.tuning.rank 4", "model.tuning.rank is not a field of LoRA; did you mean r or rank_pattern or dora?"),
    ("--model.tuning.init_args.rank 4", "model.tuning.rank is not a field of LoRA; did you mean r or rank_pattern or dora?"),
    ("--model.tuning.dict_kwargs.x 4", f"model.tuning.dict_kwargs is not a field of LoRA; allowed: {LORA_FIELDS}."),
    ("--model.tuning.r null", "model.tuning.r is null, which is not one of its values; `ftlab describe LoRA` lists them."),
    ("--model.tuning null", f"model.tuning is null; write the name of one of strategies: {names('strategies')}."),
    ("--model.backbone.nam x", "model.backbone.nam is not a key (command line); did you mean model.backbone.name?"),
    ("--model.backbone x", f"model.backbone is 'x'; it holds keys of its own: {BACKBONE_KEYS}."),
    ("--model.schedule null", "model.schedule is null; it holds keys of its own: decay, floor, warmup."),
    ("--modl.tuning LoRA", "modl.tuning is not a key (command line); did you mean model.tuning?"),
    ("--trainer.max_step 3", "trainer.max_step is not a key (command line); did you mean trainer.max_steps or trainer.max_time or "
     "trainer.min_steps?"),
    ("--trainer.max_steps null", "trainer.max_steps is null, which is not one of its values; leave it out for its default."),
    ("--data.batchsize 2", "data.batchsize is not a key (command line); did you mean data.batch_size or data.eval_batch_size?"),
    ("--batch_size 2", "batch_size is not a key (command line); did you mean data.batch_size?"),
    ("--model.optimizer Adamw", "model.optimizer is 'Adamw', which is not a class of torch.optim; did you mean AdamW?"),
    ("--trainer.callbacks+=EarlyStoppin", "trainer.callbacks is 'EarlyStoppin', which is not a class of lightning.pytorch.callbacks; "
     "did you mean EarlyStopping?"),
    ("--trainer.logger Wandblogger", "trainer.logger is 'Wandblogger', which is not a class of lightning.pytorch.loggers; did you mean "
     "WandbLogger?"),
    ("--model.tuning.r", "--model.tuning.r needs a value; write --model.tuning.r VALUE."),
    ("more", "'more' stands where an option was expected; write --key value, and quote a value that has spaces."),
    ("--plugin", "--plugin needs a value; write --plugin VALUE."),
    ("--run.name hf_abcdefghijklmnopqrstuvwxyz0123", "run.name holds what looks like a token or password; remove it and set HF_TOKEN or "
     "WANDB_API_KEY in the environment."),
    ("--data.source.items.0.x 0123456789abcdef0123456789abcdef01234567", "data.source.items.0.x holds what looks like a token or "
     "password; remove it and set HF_TOKEN or WANDB_API_KEY in the environment."),
    ("--trainer.logger.api_key short", "trainer.logger.api_key holds what looks like a token or password; remove it and set HF_TOKEN or "
     "WANDB_API_KEY in the environment."),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), SENTENCES, ids=[options for options, _ in SENTENCES])
def test_a_wrong_option_is_one_sentence_before_torch_is_imported(cold: Run, options: str, sentence: str) -> None:
    result = cold("fit", "--config", "good.yaml", *options.split(" ", 1))
    assert (result.code, result.sentence, result.err.count("\n"), result.torch) == (2, sentence, 1, False)


def test_a_mapping_as_an_option_is_checked_like_a_file(cold: Run) -> None:
    wrong_field = cold("fit", "--config", "good.yaml", "--model.tuning", '{"class_path": "LoRA", "init_args": {"rr": 4}}')
    assert (wrong_field.code, wrong_field.sentence) == (2, "model.tuning.rr is not a field of LoRA; did you mean r or rslora?")
    twice = cold("fit", "--config", "good.yaml", "--model.tuning", '{"class_path": "LoRA", "init_args": {"r": 4, "r": 5}}')
    assert (twice.code, twice.sentence) == (2, "--model.tuning: the key 'r' stands here and on line 1; keep one of them.")
    group = cold("fit", "--config", "good.yaml", "--trainer", json.dumps({"max_epoch": 3}))
    assert (group.code, group.sentence.partition(";")[0]) == (2, "trainer.max_epoch is not a key (command line)")


def test_a_field_before_its_class_is_refused(cold: Run) -> None:
    result = cold("fit", "--model.tuning.r", "4", "--config", "good.yaml")
    expected = f"model.tuning.r is set before model.tuning names a class; set model.tuning first, to one of: {names('strategies')}."
    assert (result.code, result.sentence) == (2, expected)


def test_an_unknown_command_names_the_nearest(cold: Run) -> None:
    result = cold("fitt")
    assert (result.code, result.sentence) == (2, "ftlab has no command 'fitt'; did you mean fit or list or test?")


def test_a_commit_is_no_secret(cold: Run) -> None:
    result = cold(
        "fit", "--config", "good.yaml", "--model.backbone.revision", "0123456789abcdef0123456789abcdef01234567", "--trainer.x", "1"
    )
    assert result.sentence.startswith("trainer.x is not a key")


def test_a_secret_is_not_repeated(cold: Run) -> None:
    result = cold("fit", "--config", "good.yaml", "--run.name", "hf_abcdefghijklmnopqrstuvwxyz0123")
    assert "hf_abc" not in result.err + result.out


def test_the_same_in_a_process_that_nothing_has_prepared(fresh: Command) -> None:
    result = fresh("fit", "--model.tuning", "Lora")
    sentence = "ftlab: error: model.tuning is 'Lora', which is not one of the strategies installed; did you mean LoRA?\n"
    assert (result.returncode, result.stderr) == (2, sentence)
