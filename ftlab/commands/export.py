"""`ftlab export`: a run's model in a folder that opens without ftlab, compared with the trained one before it says done."""

from __future__ import annotations

import logging
from pathlib import Path

from ftlab import registry
from ftlab.commands.arguments import Arguments
from ftlab.errors import ConfigError
from ftlab.folders import check_target

log = logging.getLogger(__name__)


def run(name: str, arguments: list[str]) -> int:
    """Export a run."""
    chosen = _parser(name).parse_args(arguments)
    _check_rank(chosen.as_lora, chosen.r)
    folder, target = Path(chosen.run).expanduser(), Path(chosen.to).expanduser().absolute()
    check_target(target)
    for plugin in chosen.plugin:
        registry.use(plugin)
    from ftlab.loading import find_checkpoint, load_run

    find_checkpoint(folder, chosen.checkpoint)
    from ftlab.export import export  # imports torch, which no error above has waited for
    from ftlab.quiet import quiet
    from ftlab.samples import sample

    quiet()
    loaded = load_run(folder, chosen.checkpoint)
    rows = sample(loaded.module, loaded.data)
    module = loaded.module
    if chosen.as_lora:
        from ftlab.commands.spectrum import reduced

        module = reduced(loaded.module, chosen.r, rows)
    parity = export(module, target, loaded.facts, rows, merge=chosen.merge, dtype=chosen.dtype)
    print(f"exported to {target}\n{parity}")
    return 0


def _check_rank(wanted: bool, r: int | None) -> None:
    if wanted and (r is None or r < 1):
        raise ConfigError(f"--as-lora needs the rank of the adapter, a whole number of at least 1, and --r is {r}; write --r 16, say.")
    if r is not None and not wanted:
        raise ConfigError("--r is the rank of --as-lora, which is missing; add it, or leave out --r.")


def _parser(name: str) -> Arguments:
    made = Arguments(prog=f"ftlab {name}", description="Write a run's model so that it opens without ftlab.", allow_abbrev=False)
    made.add_argument("run", metavar="RUN", help="the run's folder, runs/NAME/ID")
    made.add_argument("--to", required=True, metavar="DIR", help="where to; a new or empty folder")
    made.add_argument("--merge", action="store_true", help="fold the adaptation into the base, reloaded in its own type")
    made.add_argument("--as-lora", action="store_true", help="write the change of the weights as LoRA of rank --r, the closest there is")
    made.add_argument("--r", type=int, help="rank of --as-lora")
    made.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="type of the written weights (default: as trained)")
    made.add_argument("--checkpoint", default="best", metavar="best|last|FILE", help="which weights (default: best)")
    made.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="import this first, as `ftlab fit` did")
    return made
