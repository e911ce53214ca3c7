"""`ftlab sweep` checks what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab.main import main
from ftlab.studies.spec import parse
from ftlab.studies.sweep import write_sweep
from tests.unit.studies.files import study


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"factors": {"model.tunning.r": [2, 4]}}, "did you mean model.tuning"),
        ({"factors": {"model.tuning": ["LoRA", "Ful"]}}, "did you mean Full"),
        ({"set": {"trainer.max_step": 1}}, "did you mean trainer.max_steps"),
    ],
    ids=str,
)
def test_a_typo_is_found_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, Any], sentence: str
) -> None:
    file = study(tmp_path, **{"factors": {"model.tuning.r": [2, 4]}, **keys})
    assert main(["sweep", str(file), "--root", str(tmp_path / "studies")]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "studies").exists()


def test_null_is_written_as_the_agent_must_say_it(tmp_path: Path) -> None:
    choices = [None, 0.5, ["a", None]]
    file = study(tmp_path, factors=None, tune={"trials": 1, "space": {"trainer.gradient_clip_val": {"choice": choices}}})
    spec = parse(file)
    written = yaml.safe_load(write_sweep(spec, tmp_path / "sweep").read_text())
    assert written["parameters"]["trainer.gradient_clip_val"]["values"] == ["null", 0.5, '["a", null]']


def test_a_whole_number_is_written_without_a_point(tmp_path: Path) -> None:
    tune = {"trials": 1, "space": {"data.batch_size": {"choice": [4.0, 8]}}}
    file = write_sweep(parse(study(tmp_path, factors={"model.tuning.r": [2.0, 4]}, tune=tune)), tmp_path / "sweep")
    assert yaml.safe_load(file.read_text())["parameters"]["data.batch_size"]["values"] == [4, 8]
    assert "r: 2\n" in (tmp_path / "sweep" / "variants" / "r2.yaml").read_text()
    assert "4.0" not in file.read_text()


def test_what_is_right_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = study(tmp_path, factors={"model.tuning.r": [2, 4]})
    assert main(["sweep", str(file), "--root", str(tmp_path / "studies")]) == 0
    assert "wandb sweep" in capsys.readouterr().out
    sweep = yaml.safe_load((tmp_path / "studies" / "first" / "sweep" / "sweep.yaml").read_text())
    assert [Path(each).name for each in sweep["parameters"]["config"]["values"]] == ["r2.yaml", "r4.yaml"]
