"""Kill `ftlab fit` with SIGKILL, everywhere, and compare what a resumed run becomes with the run that was left alone.

`python -m tests.faults.kill_matrix [--sample N] [--folder DIR]`; `tox -e kill` runs all of it. Every kill is a real SIGKILL of a
process; the processes are forked from one that has imported torch, and share nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from tests.faults.processes import Forker, Hook, Process, forker
from tests.faults.small_run import BATCHES, EPOCHS, INTERVAL, STEPS, WINDOW, Place, Reference, differences, reference, steps_before


@dataclass(frozen=True)
class Case:
    """One way to die.

    Args:
        kind: What it is counted under.
        hook: The kill comes from the process itself, at this call.
        poll: The kill comes from outside, when this says so.
        env: Environment of the process that dies.
    """

    kind: str
    hook: Hook | None = None
    poll: Callable[[Place], bool] | None = None
    env: dict[str, str] = field(default_factory=dict)
    grace: int = 0


def die(fork: Forker, place: Place, case: Case) -> bool:
    """Run until the kill; False where the run was over before it could be killed."""
    hooks = [case.hook] if case.hook else []
    process: Process = fork.start(place.folder, place.first, {**place.env, **case.env}, hooks)
    if case.poll is not None:
        poll = case.poll
        if process.until(lambda: poll(place)):
            process.kill(9)
    return process.wait() == -9


def check(fork: Forker, place: Place, case: Case, whole: Reference, interval: int = INTERVAL) -> list[str]:
    """Kill, resume, compare; what is wrong."""
    if not die(fork, place, case):
        return ["was not killed"]
    before = place.trace()
    code, said = fork.run(place.folder, place.again, place.env)
    if code:
        return [f"the resumed run ended with {code}: {said[-300:]}"]
    after = place.trace()[len(before) :]
    lost = (before[-1]["step"] if before else 0) - (steps_before(after[0]) if after else STEPS)
    return differences(place, whole) + ([f"{lost} steps were lost"] if lost > interval else [])


def cases(seed: int = 0) -> list[Case]:
    """All of them, in an order of which every beginning is a fair sample."""
    draw = random.Random(seed)
    micro = EPOCHS * BATCHES
    step, found = "ftlab.module:FinetuneModule", []
    found += [Case("in a micro-batch", Hook(f"{step}.training_step", call=n)) for n in range(1, micro + 1)]
    found += [Case("before a step", Hook(f"{step}.optimizer_step", call=1 + n * WINDOW)) for n in range(STEPS // 2)]
    found += [Case("after a step", Hook(f"{step}.on_before_optimizer_step", call=n, after=True)) for n in range(1, STEPS + 1)]
    found += [Case("in validation", Hook(f"{step}.validation_step", call=n)) for n in range(1, EPOCHS + 2)]
    found += [Case("at a random instant", poll=_after(draw.randrange(1, micro), draw.randrange(40))) for _ in range(36)]
    saves, shared = STEPS // INTERVAL, {"TMPDIR": "/dev/shm"}
    writes = "ftlab.checkpoint_io"
    for n in range(30):
        found.append(Case("in a checkpoint write, from outside", poll=_writing(1 + n % saves), env=shared if n % 3 == 0 else {}))
    for n in range(24):
        call = draw.randrange(1, saves * 520)  # a checkpoint is some 520 writes
        found.append(Case("in a checkpoint write, mid-file", Hook(f"{writes}:_Hashing.write", call=call), env=shared if n % 3 == 0 else {}))
    for n in range(1, saves + 1):
        found.append(Case("between write and rename", Hook(f"{writes}:_write_synced", call=n, after=True)))
        found.append(Case("between rename and manifest", Hook(f"{writes}:sync_folder", call=n)))
        found.append(Case("after the manifest", Hook(f"{writes}:Manifest.write", call=2 * n, after=True)))
        found.append(Case("before a manifest's rename", Hook("os:fsync", call=draw.randrange(4, 40), after=True)))
        found.append(Case("at a link", Hook("os:symlink", call=n, after=n % 2 == 0)))
    draw.shuffle(found)
    return found


def _after(lines: int, wait: int) -> Callable[[Place], bool]:
    polls = iter(range(wait))
    return lambda place: len(place.trace()) >= lines and next(polls, None) is None


def _writing(number: int) -> Callable[[Place], bool]:
    """Whether the n-th checkpoint is being written: its temporary file is there."""
    pattern = f".step-{number * INTERVAL:08d}.ckpt.*.tmp"
    return lambda place: any((place.run / "checkpoints").glob(pattern))


def chain(fork: Forker, place: Place, whole: Reference) -> tuple[int, list[str]]:
    """Processes of one step each, every one killed, and a last one that ends; how many died, and what is wrong."""
    died = 0
    hook = Hook("ftlab.module:FinetuneModule.on_train_batch_start", call=1)
    for number in range(STEPS):
        # One step is one or two micro-batches; the kill comes when the next window begins.
        call = 1 + (1 if number % -(-BATCHES // WINDOW) == STEPS // EPOCHS - 1 else WINDOW)
        ends = number == STEPS - 1
        hooks = [Hook("ftlab.callbacks.report:Report.on_fit_end")] if ends else [Hook(hook.target, call=call)]
        code, said = fork.run(place.folder, place.again if number else place.first, place.env, hooks)
        if code != -9:
            return died, [f"process {number + 1} was not killed but ended with {code}: {said[-300:]}"]
        died += 1
    code, said = fork.run(place.folder, place.again, place.env)
    return died, differences(place, whole) if code == 0 else [f"the last process ended with {code}: {said[-300:]}"]


def control(fork: Forker, place: Place, left_out: str, whole: Reference) -> bool:
    """Whether the comparison sees that a part of the state was not restored."""
    case = Case("control", Hook("ftlab.module:FinetuneModule.training_step", call=17))
    assert die(fork, place, case)
    code, said = fork.run(place.folder, place.again, place.env, [Hook(left_out, signal=0)])
    assert code == 0, said  # it must come to the end, and to another one
    return bool(differences(place, whole))


CONTROLS = {
    "random generators": "ftlab.rng:restore",
    "loader": "ftlab.data.loader:FinetuneLoader.load_state_dict",
    "optimiser": "torch.optim.optimizer:Optimizer.load_state_dict",
}
"""What is restored → the function that does it."""


@dataclass
class Tally:
    """Counts over all cases."""

    killed: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, case: Case, faults: list[str]) -> None:
        if faults == ["was not killed"]:
            self.missed[case.kind] += 1
            return
        self.killed[case.kind] += 1
        self.wrong += [f"{case.kind} {case.hook or ''}: {fault}" for fault in faults]

    def lines(self) -> list[str]:
        kinds = sorted(self.killed.keys() | self.missed.keys())
        rows = [f"{self.killed[k]:5}  {k}" + (f" ({self.missed[k]} came too late)" if self.missed[k] else "") for k in kinds]
        return [*rows, f"{self.killed.total():5}  kills, {len(self.wrong)} differences", *self.wrong]


def _work(queue: Queue[tuple[int, Case]], folder: Path, whole: Reference, tally: Tally) -> None:
    with forker() as fork:
        while True:
            try:
                number, case = queue.get_nowait()
            except Empty:
                return
            place = Place(folder / f"case-{number}")
            faults = check(fork, place, case, whole)
            tally.add(case, faults)
            if not faults or faults == ["was not killed"]:
                shutil.rmtree(place.folder)
            else:
                print(f"{place.folder.name}: {case.kind} {case.hook or ''}: {faults[0]}", flush=True)


def matrix(folder: Path, sample: int | None = None, workers: int = 1) -> Tally:
    """Run cases, the chain of restarts unless it is a sample, and the negative controls."""
    tally, queue = Tally(), Queue[tuple[int, Case]]()
    for item in enumerate(cases()[:sample]):
        queue.put(item)
    with forker() as fork:
        whole = reference(fork, folder / "whole")
        threads = [threading.Thread(target=_work, args=(queue, folder, whole, tally)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for name, target in CONTROLS.items():
            if not control(fork, Place(folder / f"control-{name.split()[0]}"), target, whole):
                tally.wrong.append(f"control: the {name} not restored went unseen")
        if sample is None:
            each = ["--save.every_n_steps", "1"]
            died, faults = chain(fork, Place(folder / "chain", each), reference(fork, folder / "whole-each", each))
            tally.killed["restarts of one step each, in a row"] = died
            tally.wrong += [f"chain: {fault}" for fault in faults]
        for thread in threads:
            thread.join()
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="number of cases; without it all of them and the chain of restarts")
    parser.add_argument("--folder", type=Path, help="where the runs are kept; a temporary folder without it")
    parser.add_argument("--workers", type=int, default=1, help="processes that train at the same time")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ftlab-kill-") as temporary:
        folder = options.folder or Path(temporary)
        os.environ.setdefault("FTLAB_CACHE", str(folder / "cache"))
        tally = matrix(folder, options.sample, options.workers)
    print("\n".join(tally.lines()))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
