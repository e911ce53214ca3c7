"""`ftlab describe`: a plugin's fields, and an example that runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from ftlab import preflight, registry
from ftlab.given import given
from ftlab.main import main
from tests.conftest import Command


def described(capsys: pytest.CaptureFixture[str], name: str) -> dict[str, object]:
    assert main(["describe", name, "--format", "json"]) == 0
    record: dict[str, object] = json.loads(capsys.readouterr().out)
    return record


def test_a_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    record = described(capsys, "LoRA")
    fields = record["fields"]
    assert isinstance(fields, list)
    assert fields[0] == {"name": "r", "type": "int", "required": False, "default": 8, "description": "Rank of the added product."}
    assert record["paper"] == "Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models"
    assert record["traits"] == {"mergeable": True, "learning_rate": 2e-4, "starts_at_base": True}
    assert (record["package"], record["version"], record["class_path"]) == ("ftlab", "0.1.0", "ftlab.strategies.lora.LoRA")


def test_a_task_and_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert described(capsys, "CausalLM")["traits"] == {"heads": ["lm"], "auto_class": "AutoModelForCausalLM"}
    fields = described(capsys, "ftlab.data.sources.csv_file.Csv")["fields"]
    assert isinstance(fields, list)
    assert [f["name"] for f in fields if f["required"]] == ["path"]


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "LoRA"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("LoRA · strategy · ftlab 0.1.0\nAdd a trained product of two small matrices")
    assert "  bias: Literal['none', 'all', 'lora_only'] = none\n      Which biases" in page
    assert "  layers: list[int] | None = null\n" in page
    assert "traits  mergeable: true, learning_rate: 0.0002, starts_at_base: true\n" in page


@pytest.mark.parametrize("plugin", registry.plugins(), ids=lambda p: p.name)
def test_the_examples_pass_the_checks_of_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, plugin: registry.Plugin) -> None:
    record = described(capsys, plugin.class_path)
    (tmp_path / "my.yaml").write_text(str(record["yaml"]))
    section = yaml.safe_load(str(record["yaml"]))
    assert next(iter(next(iter(section.values())).values()))["class_path"] == plugin.name
    words = [w if w != "my.yaml" else str(tmp_path / w) for w in shlex.split(str(record["command"]))]
    assert words[:2] == ["ftlab", "fit"]
    assert preflight.check(given(words[2:]), "fit") == [plugin]


def test_a_miss_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "lora"]) == 2
    assert capsys.readouterr().err == "ftlab: error: nothing is called 'lora'; did you mean LoRA?\n"
    assert main(["describe"]) == 2
    expected = "ftlab: error: the following arguments are required: NAME; `ftlab describe --help` explains its arguments.\n"
    assert capsys.readouterr().err == expected


def test_a_plugin_from_a_file(ftlab: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom ftlab import DataSource\n\n@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(DataSource):\n    '''My rows.\n\n    Args:\n        place: Where.\n    '''\n    place: str\n"
        "    def splits(self): return ()\n    def rows(self, split): yield {}\n"
    )
    done = ftlab("describe", "Mine", "--plugin", "mine.py")
    assert done.stdout.startswith("Mine · data source · mine.py\nMy rows.\n")
    assert "--data.source Mine --data.source.place PLACE" in done.stdout
