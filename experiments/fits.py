"""Runs of `ftlab fit` for the tables of this folder: one process each, one thread, and what came out in a JSON file that is gone on with.

`multiprocessing` imports a script again in each child, so that a script that uses this has its work under `if __name__ == "__main__"`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

FRESH = multiprocessing.get_context("forkserver")  # its children begin with everything imported and nothing else
FRESH.set_forkserver_preload(
    ["ftlab.cli", "peft", "torchmetrics.classification", *(f"transformers.models.{m}.modeling_{m}" for m in ("bert", "llama"))]
)


class Results:
    """What has been run, in one JSON file.

    Args:
        path: The file, named as the task is.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.task = path, path.stem
        self.found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._lock = threading.Lock()

    def of(self, method: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is kept as `key` of a method; run where it is not there yet."""
        if key not in self.found.get(method, {}):
            made = make()
            with self._lock:
                self.found.setdefault(method, {})[key] = made
                self.path.write_text(json.dumps(self.found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{self.task} · {method} · {key}: {made}", flush=True)
        return dict(self.found[method][key])


def _command(words: list[str], log: str) -> None:
    """What a child process does: one command of ftlab, its output and at last its CPU seconds in a file."""
    from ftlab.main import main

    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    code = main(words)
    print(f"\n{time.process_time()}", flush=True)
    sys.exit(code)


def ftlab(command: str, config: Path, folder: str, *words: str) -> tuple[int, float, str]:
    """Exit code, CPU seconds without imports, and output of one command in a process of its own, whose run is `folder`/command/one."""
    log = Path(folder, f"{command}.log")
    call = [command, "--config", str(config), "--run.root", folder, "--run.name", command, "--run.id", "one", *words]
    process = FRESH.Process(target=_command, args=(call, str(log)))
    process.start()
    process.join()
    said = log.read_text(encoding="utf-8").strip()
    if process.exitcode not in (0, 5):
        raise RuntimeError(f"ftlab {' '.join(call)} ended with {process.exitcode}\n{said[-3000:]}")
    said, _, cpu = said.rpartition("\n")
    return int(process.exitcode or 0), float(cpu), said.strip()


def measured(command: str, config: Path, folder: str, *words: str) -> dict[str, Any]:
    """The figures that `ftlab test` or `validate` logs."""
    ftlab(command, config, folder, *words)
    found: dict[str, Any] = json.loads(Path(folder, command, "one", "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return found


def fit(config: Path, settings: Iterable[str], *words: str, kept: Iterable[str], test: bool = False) -> dict[str, Any]:
    """The figures of one run, whose folder does not stay; `error` where its numbers stopped being finite.

    Args:
        config: The YAML.
        settings: What differs from it, for the fit and its test.
        *words: What differs for the fit alone.
        kept: Names of the figures to keep.
        test: Whether to open the checkpoint with `ftlab test`.
    """
    with tempfile.TemporaryDirectory() as folder:
        code, cpu, said = ftlab("fit", config, folder, *settings, *words)
        if code:
            return {"error": said.splitlines()[-1]}
        run = Path(folder, "fit", "one")
        figures = {**json.loads((run / "summary.json").read_text(encoding="utf-8")), "cpu_seconds": round(cpu, 2)}
        figures["warnings"] = [line for line in said.splitlines() if line.startswith("learning guard:")]
        file = run / "checkpoints" / "last.ckpt"
        state = torch.load(file, weights_only=True)["state_dict"]
        once = {t.data_ptr(): t for t in state.values()}.values()  # a tied tensor has two names and is stored once
        figures |= {"model_bytes": sum(t.numel() * t.element_size() for t in once), "file_bytes": file.stat().st_size}
        if test:
            figures |= measured("test", config, folder, *settings, "--ckpt_path", str(file))
        return {key: figures[key] for key in kept if figures.get(key) not in (None, [])}
