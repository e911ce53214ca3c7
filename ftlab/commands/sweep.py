"""`ftlab sweep`: a study as a sweep of W&B."""

from __future__ import annotations

from pathlib import Path

from ftlab.commands.arguments import Arguments


def run(name: str, arguments: list[str]) -> int:
    """Write the sweep's files and say how to start it."""
    parser = Arguments(prog="ftlab sweep", description="Write a W&B sweep whose agent calls `ftlab fit`.", allow_abbrev=False)
    parser.add_argument("study", metavar="STUDY.yaml", help="the study")
    parser.add_argument("--variant", metavar="NAME", help="only this variant (default: all of them, which must share their search space)")
    parser.add_argument("--root", default="studies", metavar="FOLDER", help="the folder of all studies (default: studies)")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="import this first")
    given = parser.parse_args(arguments)
    from ftlab import registry
    from ftlab.studies.checking import check_names
    from ftlab.studies.spec import parse
    from ftlab.studies.sweep import write_sweep
    from ftlab.studies.variants import variants

    for target in given.plugin:
        registry.use(target)
    spec = parse(Path(given.study), tuple(given.plugin))
    check_names(spec, variants(spec))
    file = write_sweep(spec, Path(given.root) / spec.name / "sweep", given.variant)
    print(f"{file} is written. Start it with\n  wandb sweep {file}\nand, on each machine that has this folder, the agent that it names.")
    return 0
