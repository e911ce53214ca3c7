"""What a study costs in the engine alone: processor time per trial of 1,000 trials that take none themselves.

python experiments/benchmarks/study_engine.py [trials]

SQLite, and PostgreSQL where its programs are installed. A trial is added, taken, ended and read for the table; `ftlab fit` is a function
that writes the two files which the engine reads. The imports are paid before.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from ftlab.studies.engine import run_study
from ftlab.studies.spec import StudySpec, parse

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.faults.postgres import server


class Nothing:
    """A trial that has ended."""

    forked: float | None = time.monotonic()

    def poll(self) -> int:
        return 0

    def cpu_seconds(self) -> float:
        return 0.0

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        pass


def start(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Nothing:
    run = log.with_suffix("")
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "val_loss": 0.5, "val_accuracy": 0.5}) + "\n")
    (run / "summary.json").write_text(json.dumps({"trainable_params": 7, "tokens": 21, "peak_memory_bytes": 9}))
    return Nothing()


def study(folder: Path, name: str, trials: int) -> StudySpec:
    """Ten variants, three trials of tuning each, the rest seeds."""
    (folder / "base.yaml").write_text(yaml.safe_dump({"model": {"tuning": {"class_path": "LoRA"}}}))
    document = {
        "name": name, "base": "base.yaml", "factors": {"model.tuning.r": list(range(1, 11))}, "seeds": trials // 10 - 3,
        "tune": {"trials": 3, "space": {"model.optimizer.lr": {"log_uniform": [1.0e-5, 1.0e-2]}}},
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return parse(folder / f"{name}.yaml")


def measured(folder: Path, name: str, trials: int, url: str | None) -> str:
    spec = study(folder, name, trials)
    before, begun = time.process_time(), time.monotonic()
    code = run_study(spec, folder / "studies" / name, storage=url, start=start)
    assert code == 0, code
    cpu, wall = time.process_time() - before, time.monotonic() - begun
    return f"{1000 * cpu / trials:.1f} ms CPU, {1000 * wall / trials:.1f} ms wall per trial"


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as opened:
        folder = Path(temporary)
        measured(folder, "warm-up", 60, None)
        print(f"{trials} trials on SQLite: {measured(folder, 'sqlite', trials, None)}", flush=True)
        try:
            url = opened.enter_context(server())
        except pytest.skip.Exception as absent:
            print(f"PostgreSQL: {absent}")
        else:
            print(f"{trials} trials on PostgreSQL: {measured(folder, 'postgresql', trials, url)} (the server's own not among it)")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
