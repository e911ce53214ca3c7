"""What a run did to the weights: `ftlab describe RUN`, and `ftlab export RUN --as-lora`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from torch import Tensor

from ftlab import parity, registry
from ftlab.loading import load_run
from ftlab.lowrank import Change, as_lora, compared
from ftlab.quiet import quiet

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule


def describe(folder: Path, plugins: Sequence[str], form: str) -> int:
    """Print the spectrum of ΔW of every linear map that a run changed."""
    quiet()
    for target in plugins:
        registry.use(target)
    found, others, heads = compared(load_run(folder, "last").module)
    rows = [_row(change) for change in found]
    if form == "json":
        print(json.dumps({"layers": rows, "other_changed_tensors": others, "fresh_heads": sorted(heads)}, indent=2))
        return 0
    _print(f"{folder}: what the run changed", rows)
    print(f"{len(found)} linear maps changed; {_others(others)}; {len(heads)} fresh heads")
    return 0


def reduced(module: FinetuneModule, r: int, rows: list[Mapping[str, Tensor]]) -> FinetuneModule:
    """The run as LoRA of rank `r`; prints the energy that each layer keeps, and how the outputs differ."""
    other, found, others = as_lora(module, r)
    _print(f"the change of the weights as LoRA of rank {r}", [_row(change, r) for change in found])
    expected, got = (parity.logits_of(m.adapted, rows) for m in (module, other))
    difference = parity.compare(expected, got, sum(len(inputs["input_ids"]) for inputs in rows), float("inf"))
    print(f"not in the adapter: {_others(others)}")
    print(
        f"beside the run: largest difference {difference.largest:.3g} of the logits' scale, KL {difference.divergence:.3g}, "
        f"argmax agreement {difference.agreement:.2%}"
    )
    return other


def _row(change: Change, r: int | None = None) -> dict[str, float | str]:
    energy = change.energy()
    row: dict[str, float | str] = {
        "layer": change.name, "norm": change.norm, "relative": change.norm / change.size if change.size else float("inf"),
        "rank_90": change.rank(0.9), "rank_99": change.rank(0.99), "full_rank": len(energy),
    }  # fmt: skip
    return row if r is None else {**row, "energy_kept": float(energy[min(r, len(energy)) - 1])}


def _print(title: str, rows: Sequence[Mapping[str, float | str]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name == "layer" else "right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _others(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{len(names)} other tensors" + (f" ({shown})" if names else "")
