"""`ftlab ablate --dry-run`: everything is checked, nothing runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ftlab.main import main
from ftlab.studies.checking import check_values
from ftlab.studies.runner import HaltError
from ftlab.studies.spec import StudySpec, parse
from ftlab.studies.variants import variants
from tests.unit.studies.files import BASE, BIASES, LORA, NORMS, Dry, compose, study

RATE = "model.optimizer.lr"
SIZE = {"small": {"model.tuning.r": 4}, "large": {"model.tuning.r": 32}}


def test_what_would_run(dry: Dry, tmp_path: Path) -> None:
    found = dry(
        seeds=3, factors={"model.tuning": ["LoRA", "Full"], "size": {**SIZE, "four": {"model.tuning.r": "4"}, "as-is": {}}},
        skip=[{"model.tuning": "Full", "size": size, "why": "no rank"} for size in ("small", "large")],
        tune={"trials": 4, "space": {RATE: {"log_uniform": [1e-5, 1e-2]}}, "per": {"Full": {"trials": 2}}},
    )  # fmt: skip
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines() == [
        "study first: 4 variants, 26 runs; minimize val_loss",
        "  variant     model.tuning  size   seeds  tuning  runs",
        "  LoRA-small  LoRA          small  3      4       7",
        "  LoRA-large  LoRA          large  3      4       7",
        "  LoRA-as-is  LoRA          as-is  3      4       7",
        "  Full-as-is  Full          as-is  3      2       5",
        f"tuned: {RATE} log_uniform 1e-05 to 0.01",
        "skipped",
        "  Full-small  no rank",
        "  Full-large  no rank",
        "  Full-four   no rank",
        "the same as another",
        "  LoRA-four  is LoRA-small",
        "",
        "work: at most 104 steps on 832 rows on each device",
        "cost: not known until runs of the study are complete",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.yaml", "study.yaml"]


def test_a_whole_number_may_be_spelled_with_a_point(dry: Dry) -> None:
    tune = {"trials": 2, "space": {"data.batch_size": {"choice": [4.0, "8"]}}}
    found = dry(factors={"model.tuning.r": [4.0, 2, "8.0"]}, set={"trainer.max_steps": 3.0, "model.tuning.layers": [0.0]}, tune=tune)
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines()[2].split() == ["r4", "4", "5", "2", "7"]


@pytest.mark.parametrize("broken", [False, True])
def test_a_study_that_is_stopped_has_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: bool
) -> None:
    path = study(tmp_path)
    reported: list[str] = []

    def stop(*given: object, **options: object) -> int:
        raise HaltError("stopped by SIGINT.", 130)

    def report(name: str, arguments: list[str]) -> int:
        reported.extend(arguments)
        return 1 // int(not broken)

    monkeypatch.setattr("ftlab.studies.engine.run_study", stop)
    monkeypatch.setattr("ftlab.commands.report.run", report)
    assert main(["ablate", "--config", str(path), "--root", str(tmp_path / "all")]) == 130
    assert reported == [str(tmp_path / "all" / "first")]
    assert ("ftlab: warning: the report could not be written: integer division" in capsys.readouterr().err) is broken


@pytest.mark.parametrize("place", [".", "absent"])
def test_a_dry_run_makes_no_database(dry: Dry, tmp_path: Path, place: str) -> None:
    found = dry("--storage", f"sqlite:///{tmp_path / place / 'shared.db'}")
    assert found.code == (0 if place == "." else 8)
    assert list(tmp_path.rglob("*.db")) == []


def test_one_seed_is_warned_of(dry: Dry, tmp_path: Path) -> None:
    found = dry(seeds=[7])
    assert found.code == 0
    assert "warning: one seed: the report will have no interval and no comparison" in found.err


@pytest.mark.parametrize(
    ("keys", "code", "sentence"),
    [
        (
            {"factors": {"model.tunning": ["LoRA", "Full"]}},
            2,
            "variant LoRA (model.tunning: LoRA): model.tunning is not a key (the study); did you mean model.tuning?",
        ),
        (
            {"factors": {"model.tuning": ["LoRA", "Ful"]}},
            2,
            "variant Ful (model.tuning: Ful): model.tuning is 'Ful', which is not one of the strategies",
        ),
        (
            {"factors": {"size": {"a": {"model.tuning.rr": 4}, "b": {}}}},
            2,
            "variant a (size: a): model.tuning.rr is not a field of LoRA; did you mean r or rslora?",
        ),
        (
            {"factors": {"model.tuning.r": [4, "four"]}},
            2,
            "variant four (model.tuning.r: four): model.tuning.r is 'four'; it must be a whole number.",
        ),
        (
            {"factors": {"model.tuning.r": [4, 0]}},
            2,
            "variant r0 (model.tuning.r: 0): model.tuning.r is 0; a rank is a whole number of at least 1.",
        ),
        (
            {"factors": {RATE: [0.1, -1]}},
            2,
            "variant lr-1 (model.optimizer.lr: -1): model.optimizer.lr is -1.0; it must be a finite number above 0.",
        ),
        (
            {"factors": {"model.tuning": ["LoRA", "os.system"]}},
            7,
            "model.tuning names the class os.system, which is neither an installed plugin",
        ),
        (
            {"set": {"trainer.callbacks": ["subprocess.Popen"]}},
            7,
            "trainer.callbacks names subprocess.Popen, which a configuration may not name",
        ),
        (
            {"factors": {"size": {"as-is": {}, "eight": {"model.tuning.r": 8}}}},
            2,
            "variant eight (size: eight): its settings give the run that as-is is",
        ),
        (
            {"tune": {"trials": 2, "space": {"model.optimizer.lrr": {"uniform": [0.1, 0.2]}}}},
            2,
            "model.optimizer.lrr is not an argument of AdamW; did you mean lr?",
        ),
        (
            {"tune": {"trials": 2, "space": {"data.batch_size": {"uniform": [1, 2.5]}}}},
            2,
            "data.batch_size is 1.0; it must be a whole number.",
        ),
        (
            {"tune": {"trials": 2, "space": {"data.group_by_length": {"choice": [True, False, "some"]}}}},
            2,
            "data.group_by_length is 'some'",
        ),
        (
            {"tune": {"trials": 2, "space": {"model.tuning.r": {"int": [1, 2]}}}},
            2,
            "variant Full (model.tuning: Full): model.tuning.r is not a field of Full",
        ),
        ({"content": {**BASE, "trainer": {"max_step": 2}}}, 2, "base base.yaml: trainer.max_step is not a key"),
        (
            {"content": {**BASE, "model": {**BASE["model"], "optimizer": None}}, "tune": {"trials": 2, "space": "declared"}},
            2,
            "model.optimizer.lr is set, and nothing names model.optimizer",
        ),
        (
            {"factors": {"model.tuning": ["LoRA", "PromptTuning"]}, "cache_features": True},
            2,
            "variant PromptTuning (model.tuning: PromptTuning): cache_features: PromptTuning adds positions to each row",
        ),
    ],
    ids=str,
)
def test_mistakes_are_found_before_anything_runs(dry: Dry, keys: dict[str, Any], code: int, sentence: str) -> None:
    found = dry(**keys)
    assert (found.code, found.out) == (code, "")
    assert sentence in found.err
    assert len(found.err.splitlines()) == 1


def test_a_value_that_is_fixed_where_another_variant_searches_up_to_it(dry: Dry) -> None:
    tune = {"trials": 2, "space": {RATE: {"log_uniform": [1e-5, 1e-2]}}}
    per = {"searched": {"space": {"model.tuning.r": {"int": [4, 32]}}}}
    found = dry(factors={"size": {"searched": {}, "fixed": {"model.tuning.r": 32}}}, tune={**tune, "per": per})
    assert (found.code, found.err) == (0, "")
    same = dry(factors={"size": {"as-is": {}, "eight": {"model.tuning.r": 8}}}, tune=tune)
    assert (same.code, "variant eight (size: eight): its settings give the run that as-is is" in same.err) == (2, True)


def test_what_the_parser_makes_of_a_variant(tmp_path: Path) -> None:
    content = {**BASE, "model": {**BASE["model"], "tuning": compose(LORA, NORMS, BIASES)}}
    spec = parse(study(tmp_path, content=content, factors={RATE: ["1e-3", 0.1]}, knockout="model.tuning", set={"data": {"batch_size": 2}}))
    found = check_values(spec, variants(spec))
    one = found["lr0.001-only-LoRA"]
    assert (one.model.tuning.class_path, one.model.tuning.init_args.r) == ("ftlab.strategies.lora.LoRA", 4)
    assert (one.model.optimizer.init_args.lr, one.data.batch_size) == (0.001, 2)
    parts = found["lr0.1-without-LoRA"].model.tuning.init_args.strategies
    assert [part.class_path.rpartition(".")[2] for part in parts] == ["NormTuning", "BitFit"]
    assert len(found) == 14


def test_a_wrong_name_does_not_wait_for_torch(tmp_path: Path) -> None:
    path = study(tmp_path, factors={"model.tuning": ["LoRA", "Ful"]})
    code = f"import sys; from ftlab.main import main; main(['ablate', '--config', {str(path)!r}]); "
    code += "print(sorted({'torch', 'optuna'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
    assert "model.tuning is 'Ful'" in found.stderr


def test_what_the_runner_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    reported: list[str] = []

    def run_study(spec: StudySpec, folder: Path, *, workers: int, extend: bool, storage: str | None) -> int:
        asked.extend([spec.name, folder, workers, extend, storage])
        return 8

    engine = ModuleType("ftlab.studies.engine")
    monkeypatch.setattr(engine, "run_study", run_study, raising=False)
    monkeypatch.setattr("ftlab.commands.report.run", lambda name, arguments: reported.extend(arguments))
    monkeypatch.setitem(sys.modules, "ftlab.studies.engine", engine)
    options = ["--workers", "3", "--extend", "--storage", "postgresql://host/name", "--root", str(tmp_path / "all")]
    assert main(["ablate", "--config", str(study(tmp_path)), *options]) == 8
    assert asked == ["first", tmp_path / "all" / "first", 3, True, "postgresql://host/name"]
    assert reported == [str(tmp_path / "all" / "first"), "--storage", "postgresql://host/name"]


@pytest.mark.parametrize(("keys", "checks"), [({}, 0), ({"seeds": 3}, 1), ({"content": {**BASE, "trainer": {"max_steps": 2}}}, 1)], ids=str)
def test_what_was_checked_is_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], checks: int) -> None:
    (tmp_path / "all" / "first").mkdir(parents=True)
    study(tmp_path / "all" / "first", seeds=[0, 1])
    checked: list[object] = []
    monkeypatch.setattr("ftlab.commands.ablate.check_values", lambda *given: checked.append(given))
    engine = ModuleType("ftlab.studies.engine")
    monkeypatch.setattr(engine, "run_study", lambda *given, **options: 0, raising=False)
    monkeypatch.setattr("ftlab.commands.report.run", lambda name, arguments: 0)
    monkeypatch.setitem(sys.modules, "ftlab.studies.engine", engine)
    path = study(tmp_path, **{"seeds": 2, **keys})
    assert main(["ablate", "--config", str(path), "--root", str(tmp_path / "all")]) == 0
    assert len(checked) == checks


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "needs a study; write `ftlab ablate --config study.yaml`"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: No such file or directory"),
        (["--config", "nowhere.yaml", "--workers", "0"], "--workers is 0; it must be at least 1."),
        (["--config", "nowhere.yaml", "--worker", "2"], "unrecognized arguments: --worker 2; `ftlab ablate --help` explains"),
    ],
)
def test_options(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(["ablate", *words]) == 2
    assert sentence in capsys.readouterr().err
