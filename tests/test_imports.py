"""What is answered without importing torch, and how the process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "lightning", "transformers", "datasets", "numpy", "jsonargparse")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], [], ["list"], ["list", "--help"], ["list", "strategies", "--format", "json"], ["describe", "LoRA"]],
    ids=" ".join,
)
def test_answers_that_need_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys\nfrom ftlab.main import main\ncode = main({arguments!r})\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "0 []\n"
    assert done.stdout


def test_importing_the_package_and_its_errors_is_light(tmp_path: Path) -> None:
    code = f"import sys, ftlab, ftlab.errors\nprint([name for name in (*{HEAVY!r}, 'yaml', 'argparse') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE) as reader:
        reader.wait()
        done = subprocess.run(
            [sys.executable, "-m", "ftlab", "list"], stdout=reader.stdin, stderr=subprocess.PIPE, cwd=tmp_path, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("KeyboardInterrupt()", 130, "ftlab: interrupted.\n"),
        ("SystemExit(0)", 0, ""),
        ("SystemExit('no')", 1, ""),
        (
            "ValueError('line one\\nline two')",
            1,
            "ftlab: bug or unexpected fault: ValueError: line one\nRun again with --debug for the traceback.\n",
        ),
    ],
)
def test_how_a_command_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: str, code: int, said: str) -> None:
    from ftlab import main
    from ftlab.commands import list as command

    def run(name: str, arguments: list[str]) -> int:
        raise eval(raised)

    monkeypatch.setattr(command, "run", run)
    assert main.main(["list"]) == code
    assert capsys.readouterr().err == said


def test_an_interrupt_that_lightning_turned_into_an_exit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from ftlab import main
    from ftlab.commands import list as command

    def run(name: str, arguments: list[str]) -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr(command, "run", run)
    assert main.main(["list"]) == 130
    assert capsys.readouterr().err == "ftlab: interrupted.\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from ftlab.main import main

    assert main(["fit", "--config", "no.yaml", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith("ftlab: error: --config no.yaml: No such file or directory; name a YAML file.\n")
