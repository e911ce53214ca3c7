"""Ctrl-C in the middle of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def heed_interrupts() -> None:
    """A shell starts what runs in its background with interrupts ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_fit_says_so_and_returns_130(folder: Path) -> None:
    words = ["fit", "--config", "good.yaml", "--trainer.max_steps", "-1", "--trainer.max_epochs", "100000"]
    environment = {**os.environ, "FTLAB_CACHE": str(folder / "cache")}
    with subprocess.Popen(
        [sys.executable, "-m", "ftlab", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as process:
        assert process.stderr is not None
        said = ""
        while "a checkpoint holds" not in said:  # the table that is printed when training begins
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.endswith("ftlab: interrupted.\n")
    assert "Traceback" not in rest
