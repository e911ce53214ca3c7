"""A run that does something to its own folder in the middle, for the tests of storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ftlab import checkpoint_io
from ftlab.checkpoint_io import Manifest
from tests.faults.conftest import GOOD

PLUGIN = '''
import os, resource, shutil, subprocess
from dataclasses import dataclass
from pathlib import Path
from ftlab import TuningStrategy

@dataclass(frozen=True, kw_only=True)
class Breaks(TuningStrategy):
    """Does something to a folder after a step.

    Args:
        what: What it does.
        step: When.
        folder: Where.
        until: When it is mended.

    Only rank 0 does it.
    """

    what: str
    step: int
    folder: str
    until: int = 0

    def apply(self, model, heads):
        model.requires_grad_(False)
        model.model.layers[0].self_attn.q_proj.requires_grad_(True)
        return model

    def save(self, model, folder):
        (folder / "nothing.txt").write_text("the file system of these tests has no room for a model")

    def on_step(self, model, step, total):
        folder = Path(self.folder)
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return
        if step == self.until and self.what == "close":
            for place in (folder, *folder.glob("*/")):
                place.chmod(0o700)
        if step == self.until and self.what == "block":
            folder.unlink()
            os.rename(f"{folder}.away", folder)
        if step == self.until and self.what == "fill":
            (folder / "filler").unlink()
        if step != self.step:
            return
        if self.what == "delete":
            shutil.rmtree(folder)
        if self.what == "close":
            for place in (*folder.glob("*/"), folder):
                place.chmod(0o555)
        if self.what == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(folder.name), resource.RLIM_INFINITY))
        if self.what == "remount":
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        if self.what == "block":
            os.rename(folder, f"{folder}.away")
            folder.write_text("")
        if self.what == "fill":
            with (folder / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    file.truncate(file.tell() - 16384)  # room for a line of the log
'''


def breaking(folder: Path, what: str, step: int, target: Path, root: Path | None = None, **more: Any) -> list[str]:
    """Write the configuration and the plugin; the words that begin the run `x/y` with them.

    Args:
        folder: Where they are written.
        what: What happens, see `Breaks`.
        step: When.
        target: To which folder.
        root: The folder of all runs.
        more: `until`, `steps`, and entries of `save`.
    """
    (folder / "breaks.py").write_text(PLUGIN)
    arguments = {"what": what, "step": step, "folder": str(target), "until": more.pop("until", 0)}
    config = {
        **GOOD,
        "model": {**GOOD["model"], "tuning": {"class_path": "Breaks", "init_args": arguments}},
        "data": {**GOOD["data"], "batch_size": 2},
        "trainer": {"max_steps": more.pop("steps", 5), "max_epochs": None, "accelerator": "cpu"},
        "save": {"every_n_steps": 1, "keep": 2, **more},
        "run": {"root": str(root or folder / "runs"), "name": "x", "id": "y"},
    }
    (folder / "breaks.yaml").write_text(yaml.safe_dump(config))
    return ["fit", "--config", "breaks.yaml", "--plugin", "breaks.py"]


def steps(checkpoints: Path) -> list[int]:
    """The steps of the checkpoints that verify."""
    manifest = Manifest.read(checkpoints)
    return sorted(e.step for name, e in manifest.files.items() if checkpoint_io.problem(checkpoints / name) is None)
