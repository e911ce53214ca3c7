"""`ftlab list`: everything that can be named, from metadata and source text alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ftlab import registry
from ftlab.main import main
from tests.conftest import Command

STRATEGY = '''
from dataclasses import dataclass
from ftlab import TuningStrategy
open("imported", "w").close()

@dataclass(frozen=True, kw_only=True)
class {name}(TuningStrategy):
    """{summary}

    Args:
        size: How much.
    """
    size: int = 3

    def apply(self, model, heads):
        return model
'''


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    assert main(["list", *arguments, "--format", "json"]) == 0
    records: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return records


def install(folder: Path, package: str, entries: dict[str, str], files: dict[str, str]) -> None:
    """A distribution that lies in a folder of `sys.path`."""
    info = folder / f"{package}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[ftlab.plugins]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items()))
    for name, content in files.items():
        (folder / name).write_text(content)


def test_the_built_ins_in_both_formats(capsys: pytest.CaptureFixture[str]) -> None:
    records = {r["name"]: r for r in listed(capsys, "strategies")}
    assert records["LoRA"] == {
        "kind": "strategies",
        "name": "LoRA",
        "summary": "Add a trained product of two small matrices to linear maps: W + (alpha / r) · B·A.",
        "class_path": "ftlab.strategies.lora.LoRA",
        "package": "ftlab",
        "version": "0.1.0",
        "state": "ok",
        "problem": "",
    }
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][:3] == ["strategies", "tasks", "data"]
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("  ")}
    assert set(rows) >= {p.name for p in registry.plugins()}
    assert rows["Csv"][1:4] == ["ftlab", "0.1.0", "ftlab.data.sources.csv_file.Csv"]


def test_every_plugin_has_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert [r["name"] for r in listed(capsys) if not r["summary"]] == []


def test_nothing_is_imported_and_what_is_wrong_is_shown(tmp_path: Path) -> None:
    install(
        tmp_path,
        "stranger",
        {
            "strategies.Fresh": "fresh:Fresh",
            "strategies.LoRA": "rival:LoRA",
            "strategies.Gone": "gone:Gone",
            "strategies.Typo": "typo:Typo",
            "strategies.Other": "fresh:Absent",
        },
        {
            "fresh.py": STRATEGY.format(name="Fresh", summary="A stranger's own."),
            "rival.py": STRATEGY.format(name="LoRA", summary="Not ftlab's."),
            "typo.py": "class Typo(:\n",
        },
    )
    install(tmp_path, "twin", {"strategies.Fresh": "twin:Fresh"}, {"twin.py": STRATEGY.format(name="Fresh", summary="Twin.")})
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom ftlab.main import main\n"
        "code = main(['list', 'strategies', '--format', 'json'])\n"
        "print(code, 'torch' in sys.modules, 'fresh' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "0 False False\n"
    assert not (tmp_path / "imported").exists()
    found = {(r["package"], r["name"]): r for r in json.loads(done.stdout)}
    states = {key: (r["state"], r["problem"]) for key, r in found.items()}
    assert states["ftlab", "LoRA"] == ("ok", "")
    assert states["stranger", "LoRA"] == ("shadowed", "the name means ftlab's own; write rival.LoRA.")
    assert states["stranger", "Fresh"] == ("ambiguous", "twin 1.5 has the same name; write fresh.Fresh.")
    assert states["twin", "Fresh"] == ("ambiguous", "stranger 1.5 has the same name; write twin.Fresh.")
    assert states["stranger", "Gone"] == ("broken", "there is no module gone.")
    assert states["stranger", "Typo"][0] == "broken"
    assert states["stranger", "Typo"][1].startswith(f"{tmp_path}/typo.py cannot be parsed: invalid syntax")
    assert states["stranger", "Other"][0] == "broken"
    assert found["stranger", "Fresh"]["summary"] == "A stranger's own."


def test_a_plugin_from_a_file(ftlab: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY.format(name="Mine", summary="My own."))
    done = ftlab("list", "strategies", "--plugin", "mine.py", "--format", "json")
    records = {r["name"]: r for r in json.loads(done.stdout)}
    assert (records["Mine"]["class_path"], records["Mine"]["summary"], records["Mine"]["package"]) == ("mine.Mine", "My own.", "mine.py")
    assert done.stderr == ""


def test_classes_of_other_packages(capsys: pytest.CaptureFixture[str]) -> None:
    records = listed(capsys, "classes")
    assert {"key": "model.optimizer", "name": "AdamW", "class_path": "torch.optim.AdamW"} in records
    assert {"key": "trainer.callbacks", "name": "EarlyStopping", "class_path": "lightning.pytorch.callbacks.EarlyStopping"} in records
    assert "LambdaCallback" not in {r["name"] for r in records}
    import lightning.pytorch.callbacks
    import lightning.pytorch.loggers
    import torch.optim

    homes = {"model.optimizer": torch.optim, "trainer.callbacks": lightning.pytorch.callbacks, "trainer.logger": lightning.pytorch.loggers}
    assert all(isinstance(getattr(homes[r["key"]], r["name"]), type) for r in records)
    assert main(["list", "classes"]) == 0
    assert "model.optimizer: ASGD, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["strategy"], "`ftlab list` has no kind 'strategy'; did you mean strategies?"),
        (["--formt", "json"], "unrecognized arguments: --formt; `ftlab list --help` explains its arguments."),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    assert main(["list", *arguments]) == 2
    assert capsys.readouterr().err == f"ftlab: error: {sentence}\n"
