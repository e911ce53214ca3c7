"""Where a backbone comes from, and the one sentence for each way in which that goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from ftlab.backbone import ASSETS, Backbone
from ftlab.errors import CheckpointError, ConfigError, FtlabError, SecurityError
from ftlab.testing.models import tiny_model_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "89abcdef0123456789abcdef0123456789abcdef"

LOAD = """
import sys
from pathlib import Path
from ftlab.backbone import Backbone
from ftlab.errors import FtlabError
from ftlab.quiet import quiet
quiet()
for revision in sys.argv[1:]:
    backbone = Backbone(name="org/name", revision=revision or None)
    try:
        backbone.load_tokenizer()
        model, missing = backbone.load_model("AutoModelForCausalLM", {}, {})
        print(model.model.norm.weight.sum().item(), len(missing))
    except FtlabError as error:
        print(type(error).__name__, error, sep=": ")
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def load(backbone: Backbone) -> torch.nn.Module:
    return backbone.load_model("AutoModelForCausalLM", {}, {})[0]


def refusal(kind: type[FtlabError], action: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hub_cache(home: Path, snapshots: dict[str, Path], refs: dict[str, str]) -> None:
    """A cache as huggingface_hub lays it out: blobs by hash, links to them in a folder per commit, commits by name."""
    repository = home / "hub" / "models--org--name"
    for part in ("blobs", "refs"):
        (repository / part).mkdir(parents=True)
    for commit, source in snapshots.items():
        (repository / "snapshots" / commit).mkdir(parents=True)
        for file in source.iterdir():
            blob = repository / "blobs" / f"{commit}-{file.name}"
            shutil.copy(file, blob)
            (repository / "snapshots" / commit / file.name).symlink_to(os.path.relpath(blob, repository / "snapshots" / commit))
    for name, commit in refs.items():
        (repository / "refs" / name).write_text(commit, encoding="utf-8")


def in_fresh_process(home: Path, revisions: Sequence[str] = ("",), **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), **environment}
    words = [sys.executable, "-c", LOAD, *revisions]
    return subprocess.run(words, env=settings, capture_output=True, text=True, timeout=240, check=True)


def closed_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_local_folder_gives_its_own_weights_in_train_mode(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    model = load(Backbone(name=str(folder)))
    assert model.training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in stored.items())


def test_a_built_in_loads_without_a_network() -> None:
    model = load(Backbone(name="ftlab/tiny-llama"))
    assert torch.equal(model.state_dict()["model.norm.weight"], load_file(ASSETS / "tiny-llama" / "model.safetensors")["model.norm.weight"])


def test_an_unknown_built_in_names_those_there_are() -> None:
    message = refusal(ConfigError, Backbone(name="ftlab/tiny-lama").load_config)
    assert message.startswith("model.backbone.name ftlab/tiny-lama is not a built-in; allowed: ftlab/")
    assert "ftlab/tiny-llama" in message


def test_a_folder_that_does_not_exist_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    name = str(tmp_path / "absent")
    message = refusal(ConfigError, Backbone(name=name).load_config)
    assert message == f"model.backbone.name {name} is not a folder; write an existing folder or a hub id of the form org/name."


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16)])
@pytest.mark.parametrize("fresh", [False, True])
def test_dtype(folder: Path, dtype: str, expected: torch.dtype, fresh: bool) -> None:
    LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    model = load(Backbone(name=str(folder), dtype=dtype, fresh=fresh))  # type: ignore[arg-type]
    assert {p.dtype for p in model.parameters()} == {expected}


def test_fresh_weights_need_no_file_and_follow_the_seed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(load(Backbone(name=str(folder), fresh=True)).get_parameter("lm_head.weight"))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_attention_implementation(folder: Path) -> None:
    model = load(Backbone(name=str(folder), attention="eager"))
    assert model.config._attn_implementation == "eager"  # type: ignore[union-attr]


def test_another_tokenizer(folder: Path, tmp_path: Path) -> None:
    other = tiny_model_folder("bert", tmp_path / "bert")
    assert Backbone(name=str(folder), tokenizer=str(other)).load_tokenizer()("a")["input_ids"][-1] == 2  # encloses the text
    assert Backbone(name=str(folder)).load_tokenizer()("a")["input_ids"][-1] != 2


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(ConfigError, lambda: load(Backbone(name=str(folder)))) == (
        f"model.backbone.name {folder} holds no weights; it needs a model.safetensors file, "
        "or set model.backbone.fresh to true for random weights."
    )


def test_pickled_weights_only_where_asked_for(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(stored, folder / "pytorch_model.bin")
    assert refusal(ConfigError, lambda: load(Backbone(name=str(folder)))) == (
        f"model.backbone.name {folder} holds only pytorch_model.bin, which needs model.backbone.pickled_weights; "
        "it needs a model.safetensors file, or set model.backbone.fresh to true for random weights."
    )
    model = load(Backbone(name=str(folder), pickled_weights=True))
    assert torch.equal(model.get_parameter("lm_head.weight"), stored["lm_head.weight"])


def test_a_missing_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    message = refusal(ConfigError, lambda: load(Backbone(name=str(folder))))
    assert message.startswith(f"{folder}: its configuration cannot be loaded: ")
    assert "config.json" in message


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model_type": "nonesuch"}', '{"hidden_size": 3}', '{"model_type": "llama", "hidden_size": "x"}']
)
def test_a_broken_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, encoding="utf-8")
    message = refusal(ConfigError, lambda: load(Backbone(name=str(folder))))
    assert message.startswith(f"{folder}: its configuration cannot be loaded: ")


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_a_broken_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    message = refusal(ConfigError, Backbone(name=str(folder)).load_tokenizer)
    assert message.startswith(f"{folder}: its tokenizer cannot be loaded: ")


def test_a_tokenizer_of_a_kind_that_does_not_exist(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "model": {"type": "nonesuch"}}), encoding="utf-8")
    message = refusal(ConfigError, Backbone(name=str(folder)).load_tokenizer)
    assert message.startswith(f"{folder}: its tokenizer cannot be loaded: ")


@pytest.mark.parametrize("keep", [0, 4, 0.3, 0.99])
def test_damaged_weights(folder: Path, keep: float) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    message = refusal(CheckpointError, lambda: load(Backbone(name=str(folder))))
    assert message.startswith(f"{folder}: a file of its weights is damaged (")


def test_an_index_that_names_an_absent_shard(folder: Path) -> None:
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(folder / "sharded", max_shard_size="40KB")
    for file in (folder / "sharded").glob("model*"):
        shutil.move(file, folder)
    (folder / "model.safetensors").unlink()
    shards = sorted(p.name for p in folder.glob("*.safetensors"))
    assert len(shards) > 1
    load(Backbone(name=str(folder)))
    (folder / shards[1]).unlink()
    assert refusal(CheckpointError, lambda: load(Backbone(name=str(folder)))) == (
        f"model.backbone.name {folder} lacks {shards[1]}, which model.safetensors.index.json names; fetch or write the weights again."
    )
    (folder / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    assert "damaged model.safetensors.index.json" in refusal(CheckpointError, lambda: load(Backbone(name=str(folder))))


def test_an_adapter_is_not_a_backbone(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    get_peft_model(LlamaForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["q_proj"])).save_pretrained(folder)
    assert refusal(ConfigError, lambda: load(Backbone(name=str(folder)))) == (
        f"model.backbone.name {folder} holds an adapter; name the model that it belongs to."
    )


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_experts_implementation_internal", "attn_implementation"])
def test_a_configuration_that_would_load_code(folder: Path, key: str, nested: bool) -> None:
    set_in_config(folder, {"text_config": {key: "owner/kernel"}} if nested else {key: "owner/kernel"})
    message = refusal(SecurityError, Backbone(name=str(folder)).load_config)
    assert message.startswith(f"{folder}/config.json sets {key}")
    assert message.endswith("which can load foreign code; remove the key.")


def test_a_configuration_with_code_of_its_own(folder: Path) -> None:
    set_in_config(folder, {"model_type": "novel", "auto_map": {"AutoConfig": "novel.NovelConfig"}})
    (folder / "novel.py").write_text("raise SystemExit('code of the model was run')", encoding="utf-8")
    assert refusal(SecurityError, lambda: load(Backbone(name=str(folder)))) == (
        f"{folder}/config.json needs code of its own (auto_map), which ftlab never runs; name a model that transformers has."
    )


def test_a_model_in_the_hub_cache_by_branch_tag_and_commit(original: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(original, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({**weights, "model.norm.weight": torch.full((32,), 2.0)}, other / "model.safetensors", {"format": "pt"})
    hub_cache(tmp_path / "home", {COMMIT: original, OTHER: other}, {"main": COMMIT, "v2": OTHER})
    run = in_fresh_process(tmp_path / "home", ["", "v2", OTHER, "v3"], HF_HUB_OFFLINE="1")
    assert run.stdout == (
        "32.0 0\n64.0 0\n64.0 0\n"
        "EnvironmentFault: org/name: the Hugging Face hub cannot be reached and the local cache does not hold its tokenizer; "
        "check the network, or name a local folder.\n"
    )


@pytest.mark.slow  # it waits; tests/faults/test_config_errors.py asks such a hub once as well
def test_a_hub_that_does_not_answer_is_asked_once(original: Path, tmp_path: Path) -> None:
    """Its client alone would repeat each of a dozen requests five times."""
    nowhere = {"HF_ENDPOINT": closed_port(), "HF_HUB_OFFLINE": "0"}
    run = in_fresh_process(tmp_path / "empty", **nowhere)
    assert run.stdout == (
        "EnvironmentFault: org/name: the Hugging Face hub cannot be reached and the local cache does not hold its tokenizer; "
        "check the network, or name a local folder.\n"
    )
    assert "Retrying" not in run.stderr
    hub_cache(tmp_path / "home", {COMMIT: original}, {"main": COMMIT})
    run = in_fresh_process(tmp_path / "home", **nowhere)
    assert run.stdout == "32.0 0\n"
    assert "Retrying" not in run.stderr
    assert run.stderr.count("does not answer") == 1


def test_a_configuration_from_the_hub_that_would_load_code(original: Path, tmp_path: Path) -> None:
    evil = Path(shutil.copytree(original, tmp_path / "evil"))
    set_in_config(evil, {"_attn_implementation_internal": "owner/kernel"})
    hub_cache(tmp_path / "home", {COMMIT: evil}, {"main": COMMIT})
    assert in_fresh_process(tmp_path / "home", HF_HUB_OFFLINE="1").stdout == (
        "SecurityError: org/name/config.json sets _attn_implementation_internal, which can load foreign code; remove the key.\n"
    )


def set_in_config(folder: Path, entries: dict[str, object]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **entries}), encoding="utf-8")
