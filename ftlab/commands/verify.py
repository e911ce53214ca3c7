"""`ftlab verify`: the resume certificate. One run goes through, another is killed half-way and resumed; they must be the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftlab.commands.arguments import Arguments
from ftlab.commands.resume import find_run
from ftlab.errors import ConfigError, FtlabError
from ftlab.run_folder import write_json

_STEPS = 3
"""Optimiser steps before the kill, and after it."""
_PATIENCE = 600.0
"""Seconds without a new step after which a run is taken to hang."""


def run(name: str, arguments: list[str]) -> int:
    """Run the certificate for a configuration or a run; the exit code is 0 where both runs are the same to the last bit, else 4."""
    chosen, words = _parser(name).parse_known_args(arguments)
    if chosen.target is None or arguments[0].startswith("-"):
        raise ConfigError(f"ftlab {name} needs a configuration or a run; write `ftlab {name} config.yaml` or `ftlab {name} runs/NAME/ID`.")
    if chosen.steps < 1:
        raise ConfigError(f"--steps is {chosen.steps}; it must be 1 or more.")
    target, steps = Path(chosen.target), chosen.steps
    config = find_run(str(target)) / "config.yaml" if target.is_dir() else target
    plugins = [word for plugin in chosen.plugin for word in ("--plugin", plugin)]
    with tempfile.TemporaryDirectory(prefix="ftlab-verify-") as folder:
        base = ["--config", str(config), *words, "--run.root", folder, "--run.name", "verify"]
        base += ["--trainer.max_steps", str(2 * steps), "--save.every_n_steps", "1", "--trainer.log_every_n_steps", "1"]
        verdict = certify([sys.executable, "-P", "-m", "ftlab", "fit", *plugins], base, Path(folder), steps)
    for line in verdict["lines"]:
        print(line)
    print("verified: the resumed run is the uninterrupted one" if verdict["same"] else "not verified: the runs differ")
    if target.is_dir():
        write_json(target / "verify.json", verdict)
    return 0 if verdict["same"] else 4


def _parser(name: str) -> Arguments:
    about = "Run some steps, then again with a SIGKILL in the middle and --resume, and compare the two to the last bit."
    more = "What else follows is for `ftlab fit`, such as --model.tuning.r 16."
    made = Arguments(prog=f"ftlab {name}", description=about, epilog=more, allow_abbrev=False)
    made.add_argument("target", nargs="?", metavar="CONFIG_OR_RUN", help="a YAML file, or the folder of a run")
    made.add_argument("--steps", type=int, default=_STEPS, metavar="N", help=f"steps before the kill, and after it (default: {_STEPS})")
    made.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="import this and use its classes too")
    return made


def certify(fit: Sequence[str], settings: Sequence[str], folder: Path, steps: int) -> dict[str, Any]:
    """Run 2n steps, then n, a kill, and n again; compare.

    Args:
        fit: `ftlab fit`, with the plugins that it needs.
        settings: What follows it for a new run, but for the run's id.
        folder: Where the runs are kept.
        steps: n.
    """
    whole, broken = folder / "verify" / "whole", folder / "verify" / "broken"
    _finish(_start([*fit, *settings, "--run.id", "whole"], folder / "trace-whole"))
    killed = _start([*fit, *settings, "--run.id", "broken"], folder / "trace-broken")
    at = _kill_after(killed, folder / "trace-broken", steps)
    _finish(_start([*fit, "--resume", str(broken)], folder / "trace-broken"))
    lines = [f"killed by SIGKILL after step {at} of {2 * steps}, then resumed"]
    lines += compare_traces(folder / "trace-whole", folder / "trace-broken")
    lines += compare_checkpoints(whole / "checkpoints" / "last.ckpt", broken / "checkpoints" / "last.ckpt")
    lines += compare_figures(whole / "summary.json", broken / "summary.json")
    return {"same": all("differ" not in line.split() for line in lines), "steps": 2 * steps, "killed_at": at, "lines": lines}


def _start(command: Sequence[str], trace: Path) -> subprocess.Popen[str]:
    trace.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "FTLAB_RUN_FOLDER"}
    environment["FTLAB_TRACE"] = str(trace)
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )  # fmt: skip


def _finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate()
    if process.returncode:
        said = (output.strip().splitlines() or ["it said nothing"])[-1]
        error = FtlabError(f"the run to verify ended with exit code {process.returncode}: {said.removeprefix('ftlab: error: ')}")
        error.exit_code = max(process.returncode, 1)
        raise error


def _kill_after(process: subprocess.Popen[str], trace: Path, steps: int) -> int:
    """Kill the whole session once `steps` optimiser steps are in the trace; the step that was reached."""
    reached, last = 0, time.monotonic()
    while reached < steps and process.poll() is None and time.monotonic() - last < _PATIENCE:
        now = max((int(r["step"]) for r in read_trace(trace)), default=0)
        if now > reached:
            reached, last = now, time.monotonic()
        time.sleep(0.002)  # polled, so that the run itself holds no code for being killed
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if reached < steps:
        raise ConfigError(f"the run to verify ended after step {reached}, before it could be killed; it needs at least {2 * steps} steps.")
    return reached


def read_trace(folder: Path) -> list[dict[str, Any]]:
    """Every whole line of every rank."""
    records = []
    for path in sorted(folder.glob("rank*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append({**json.loads(line), "rank": path.stem})
            except ValueError:  # the line that the kill cut
                continue
    return records


def compare_traces(whole: Path, broken: Path) -> list[str]:
    """One line each for rows, learning rates and losses; a micro-batch that was run twice must agree both times."""
    expected = {(r["rank"], r["epoch"], r["batch"]): r for r in read_trace(whole)}
    found = read_trace(broken)
    missing = expected.keys() - {(r["rank"], r["epoch"], r["batch"]) for r in found}
    lines = [] if not missing else [f"micro-batches differ because {len(missing)} of {len(expected)} were not run"]
    for field, words in (("rows", "row ids"), ("lr", "learning rates"), ("loss", "losses")):
        wrong = [r for r in found if expected.get((r["rank"], r["epoch"], r["batch"]), {}).get(field) != r[field]]
        where = f" differ first at step {wrong[0]['step']}" if wrong else f" are equal in all {len(found)} micro-batches"
        lines.append(words + where)
    return lines


def compare_checkpoints(whole: Path, broken: Path) -> list[str]:
    """One line each for weights, optimiser and random state."""
    from ftlab.checkpoint_io import load

    first, second = load(whole), load(broken)
    parts = {
        "weights": (first["state_dict"], second["state_dict"]),
        "optimiser": (first["optimizer_states"], second["optimizer_states"]),
        "schedule": (first["lr_schedulers"], second["lr_schedulers"]),
        "random state": (first["ftlab"]["rng"], second["ftlab"]["rng"]),
    }
    return [f"{name} {'is' if name != 'weights' else 'are'} equal" if equal(a, b) else f"{name} differ" for name, (a, b) in parts.items()]


def compare_figures(whole: Path, broken: Path) -> list[str]:
    """One line for the figures of the last validation; none where a run has no validation."""
    first, second = (_validation(path) for path in (whole, broken))
    wrong = [name for name, value in first.items() if not equal(value, second.get(name))]
    says = f"differ in {', '.join(wrong)}" if wrong else "are equal"
    return [f"validation figures {says}"] if first else []


def _validation(summary: Path) -> dict[str, Any]:
    figures = json.loads(summary.read_text(encoding="utf-8"))
    return {name: value for name, value in figures.items() if name.startswith("val_")}


def equal(first: Any, second: Any) -> bool:
    """Whether two nested values of tensors and plain types are the same to the last bit."""
    import torch

    if isinstance(first, torch.Tensor):
        alike = isinstance(second, torch.Tensor) and first.dtype == second.dtype and first.shape == second.shape
        return alike and torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))  # NaN is NaN, -0 not 0
    if isinstance(first, dict):
        return isinstance(second, dict) and first.keys() == second.keys() and all(equal(v, second[k]) for k, v in first.items())
    if isinstance(first, list | tuple):
        return isinstance(second, list | tuple) and len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)
