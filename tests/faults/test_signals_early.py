"""P8: a signal while the model is fetched, rows are encoded or the untuned model is scored ends the process, and nothing is in the way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ftlab.testing.models import tiny_model_folder
from tests.faults.conftest import GOOD
from tests.faults.hub import Hub, hub
from tests.faults.processes import Forker, Hook, codes
from tests.faults.small_run import BATCHES, Place

SHORT = ["--trainer.max_epochs", "1"]
MOMENTS = {
    "encoding": Hook("ftlab.data.store:_add", signal.SIGTERM, call=4),
    "writing the tokens": Hook("ftlab.data.store:_publish", signal.SIGTERM),
    "loading the model": Hook("ftlab.module:FinetuneModule.configure_model", signal.SIGTERM),
    "scoring the untuned model": Hook("ftlab.module:FinetuneModule.validation_step", signal.SIGTERM),
}
"""Where the process is when the signal comes."""


def left(cache: Path) -> list[Path]:
    """Half-written tokens."""
    return [path for path in cache.rglob(".*") if path.is_dir()]


@pytest.mark.parametrize("moment", MOMENTS)
def test_it_ends_and_leaves_nothing(fork: Forker, tmp_path: Path, moment: str) -> None:
    """P8."""
    place = Place(tmp_path / "run")
    code, said = fork.run(place.folder, place.first, {**place.env, "FTLAB_CACHE": str(tmp_path / "cache")}, [MOMENTS[moment]])
    assert code == 143
    assert said.splitlines()[-1] == "ftlab: stopped by SIGTERM outside of training."
    assert "Traceback" not in said
    assert left(tmp_path / "cache") == []
    assert {p.name for p in place.run.glob("*")} <= {".lock", "config.yaml", "versions.json"}


def test_the_next_start_works(fork: Forker, tmp_path: Path) -> None:
    """P8: with no cleaning by hand, after each of the moments in turn."""
    place = Place(tmp_path / "run", SHORT)
    env = {**place.env, "FTLAB_CACHE": str(tmp_path / "cache")}
    for hook in MOMENTS.values():
        assert fork.run(place.folder, place.again, env, [hook])[0] == 143
    code, said = fork.run(place.folder, place.again, env)
    assert code == 0, said
    assert len(place.trace()) == BATCHES


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_other_signals(fork: Forker, tmp_path: Path, number: int, code: int) -> None:
    """P4, P6 before the first step."""
    place = Place(tmp_path / "run")
    hook = Hook("ftlab.module:FinetuneModule.configure_model", number)
    assert fork.run(place.folder, place.first, place.env, [hook])[0] == code


@pytest.mark.slow
def test_a_hangup_that_is_ignored_stays_ignored(fork: Forker, tmp_path: Path) -> None:
    """P6 with nohup, before the first step: there is nothing to save yet."""
    place = Place(tmp_path / "run", SHORT)
    hook = Hook("ftlab.module:FinetuneModule.configure_model", signal.SIGHUP)
    code, said = fork.run(place.folder, place.first, place.env, [hook], ignored=[signal.SIGHUP])
    assert code == 0, said


def test_two_ranks_leave_together(fork: Forker, tmp_path: Path) -> None:
    """P8 with two ranks, both signalled while the untuned model is scored."""
    place = Place(tmp_path / "run")
    hooks = {rank: [MOMENTS["scoring the untuned model"]] for rank in range(2)}
    ranks = fork.ranks(place.folder, place.first, place.env, hooks)
    assert codes(ranks) == [143, 143], ranks[0].text


def test_the_signals_default_leaves_half_of_the_tokens(fork: Forker, tmp_path: Path) -> None:
    """P8, control: nobody takes the signal."""
    place = Place(tmp_path / "run")
    hooks = [MOMENTS["encoding"], Hook("ftlab.signals:leave_at_once", signal=0)]
    code, _ = fork.run(place.folder, place.first, {**place.env, "FTLAB_CACHE": str(tmp_path / "cache")}, hooks)
    assert code == -signal.SIGTERM
    assert left(tmp_path / "cache") != []


PLUGIN = '''
from dataclasses import dataclass
from huggingface_hub import constants
from ftlab import TuningStrategy

@dataclass(frozen=True, kw_only=True)
class Unused(TuningStrategy):
    """A plugin file has one."""

    def apply(self, model, heads):
        return model

constants.HF_HUB_OFFLINE, constants.ENDPOINT, constants.HF_HUB_CACHE = False, "ADDRESS", "FOLDER"
constants.HUGGINGFACE_CO_URL_TEMPLATE = "ADDRESS/{repo_id}/resolve/{revision}/{filename}"
'''
"""The client reads its environment when it is imported, which the parent of these processes has done."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    with hub(tiny_model_folder("llama", tmp_path / "model")) as running:
        yield running


def test_in_the_middle_of_a_download(fork: Forker, served: Hub, folder: Path) -> None:
    """P8: half of the weights have come; the next start fetches the rest."""
    config = {**GOOD, "model": {**GOOD["model"], "backbone": {"name": "someone/tiny"}}}
    (folder / "hub.yaml").write_text(yaml.safe_dump(config))
    (folder / "hub.py").write_text(PLUGIN.replace("ADDRESS", served.address).replace("FOLDER", str(folder / "hub")))
    words = ["fit", "--config", "hub.yaml", "--plugin", "hub.py"]
    served.stalls = True
    process = fork.start(folder, words)
    assert process.until(served.half.is_set), process.text
    process.kill(signal.SIGTERM)
    assert process.wait() == 143, process.text
    assert not list((folder / "hub").rglob("model.safetensors"))
    served.stalls = False
    code, said = fork.run(folder, words)
    assert code == 0, said
