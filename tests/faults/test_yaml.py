"""What can be wrong with a configuration file; each is said with the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Run, names

FILES = [
    ("twice", b"model:\n  backbone: {name: a}\ndata: {}\nmodel: {}\n", "line 4: the key 'model' stands here and on line "
     "1; keep one of them."),
    ("twice inside", b"model:\n  backbone:\n    name: a\n    name: b\n", "line 4: the key 'name' stands here and on line "
     "3; keep one of them."),
    ("list", b"- model\n- data\n", " holds a list, not key: value pairs; write keys such as model, data and trainer."),
    ("word", b"model\n", " holds only 'model', not key: value pairs; write keys such as model, data and trainer."),
    ("empty", b"", " holds nothing, not key: value pairs; write keys such as model, data and trainer."),
    ("comments", b"# model:\n", " holds nothing, not key: value pairs; write keys such as model, data and trainer."),
    ("tab", b"model:\n\tbackbone: {}\n", r"line 2: found character '\t' that cannot start any token."),
    ("encoding", b"model:\n  backbone: {name: caf\xe9}\n", "line 2 is not UTF-8; save the file as UTF-8."),
    ("alias", b"a: &x {b: 1}\nc: *x\n", "line 2: an alias (*name) is not allowed; write the value out."),
    ("tag", b"model: !!python/object/apply:os.system ['touch PWNED']\n", "line 1: could not determine a constructor for the tag "
     "'tag:yaml.org,2002:python/object/apply:os.system'."),
    ("name tag", b"model: !!python/name:os.system\n", "line 1: could not determine a constructor for the tag "
     "'tag:yaml.org,2002:python/name:os.system'."),
    ("odd key", b"? [a, b]\n: c\n", "line 1: a key is not a single word."),
    ("deep", b"[" * 10_000 + b"]" * 10_000, "line 1: nested more than 50 levels deep."),
    ("deep mapping", b"".join(b" " * i + b"a:\n" for i in range(60)), "line 50: nested more than 50 levels deep."),
    ("unclosed", b"model: {a: 1\n", "line 2: expected ',' or '}', but got '<stream end>'."),
]  # fmt: skip


@pytest.mark.parametrize(("content", "problem"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_file_that_is_no_configuration(cold: Run, folder: Path, content: bytes, problem: str) -> None:
    (folder / "x.yaml").write_bytes(content)
    result = cold("fit", "--config", "x.yaml")
    expected = f"--config x.yaml{'' if problem.startswith(' ') else ', '}{problem}"
    assert (result.code, result.sentence, result.torch) == (2, expected, False)
    assert not (folder / "PWNED").exists()


def test_an_alias_bomb_ends_at_its_first_alias(cold: Run, folder: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    (folder / "x.yaml").write_text("\n".join(lines))
    result = cold("fit", "--config", "x.yaml")
    assert (result.code, result.sentence) == (2, "--config x.yaml, line 2: an alias (*name) is not allowed; write the value out.")


def test_a_huge_file_is_not_read(cold: Run, folder: Path) -> None:
    with (folder / "x.yaml").open("wb") as file:
        file.truncate(100 << 20)
    result = cold("fit", "--config", "x.yaml")
    assert (result.code, result.sentence) == (2, "--config x.yaml is larger than 1048576 bytes; a configuration is a short YAML file.")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no.yaml", "--config no.yaml: No such file or directory; name a YAML file."),
        ("https://example.org/x.yaml", "--config https:/example.org/x.yaml: No such file or directory; name a YAML file."),
        (".", "--config . is not a regular file; name a YAML file."),
        ("/dev/null", "--config /dev/null is not a regular file; name a YAML file."),
    ],
)
def test_a_file_that_cannot_be_read(cold: Run, name: str, sentence: str) -> None:
    result = cold("fit", "--config", name)
    assert (result.code, result.sentence) == (2, sentence)


def test_no_file_after_config(cold: Run) -> None:
    result = cold("fit", "--config")
    assert (result.code, result.sentence) == (2, "--config needs a file; write --config path.yaml.")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("modl: {}\n", "modl is not a key (x.yaml); did you mean model?"),
        ("model: null\n", "model is null; it holds keys of its own: backbone, metrics, optimizer, schedule, skip_nonfinite, "
         "stop_at_spike, task, tuning."),
        ("trainer: {max_step: 3}\n", "trainer.max_step is not a key (x.yaml); did you mean trainer.max_steps or trainer.max_time or "
         "trainer.min_steps?"),
        ("model: {tuning: {class_path: LoRA, init_args: {rank: 8}}}\n", "model.tuning.rank is not a field of LoRA; did you mean r or "
         "rank_pattern or dora?"),
        ("model: {tuning: {class_path: LoRA, r: 8}}\n", "model.tuning.r stands beside class_path (x.yaml); fields stand under "
         "model.tuning.init_args."),
        ("model: {tuning: {name: LoRA}}\n", "model.tuning.name is set before model.tuning names a class; set model.tuning first, to one "
         "of: "
         f"{names('strategies')}."),
        ("model: {tuning: [LoRA]}\n", f"model.tuning is ['LoRA']; write the name of one of strategies: {names('strategies')}."),
        ("model: {backbone: ftlab/tiny-llama}\n", "model.backbone is 'ftlab/tiny-llama'; it holds keys of its own: "
         "activation_checkpointing, "
         "attention, dtype, fresh, name, new_tokens, pad_token, pickled_weights, revision, tokenizer."),
    ],
)  # fmt: skip
def test_wrong_keys_in_a_file(cold: Run, folder: Path, content: str, sentence: str) -> None:
    (folder / "x.yaml").write_text(content)
    result = cold("fit", "--config", "x.yaml")
    assert (result.code, result.sentence, result.torch) == (2, sentence, False)


def test_a_byte_order_mark_is_no_fault(warm: Run, folder: Path) -> None:
    (folder / "x.yaml").write_bytes(b"\xef\xbb\xbf" + (folder / "good.yaml").read_bytes())
    assert warm("fit", "--config", "x.yaml", "--print_config").code == 0
