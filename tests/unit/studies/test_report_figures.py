"""Static figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from ftlab.studies.report import figures
from ftlab.studies.report.digest import Digest
from tests.unit.studies import synthetic

ODD = "$\\frac{x$ <b>\x1b[31m 漢"


def test_every_chart_has_a_figure_and_odd_names_stay_text(tmp_path: Path) -> None:
    parts = ("whole", "without-a", "only-a")
    records = synthetic.records(tmp_path, {"knockout": parts, "size": ("small", "large")}, seeds=2, tuning=2, steps=2)
    renamed = [
        replace(r, variant=r.variant.replace("small", ODD), levels={**r.levels, "size": r.levels["size"].replace("small", ODD)})
        for r in records
    ]
    made = Digest("s", "val_loss", "minimize", tmp_path, tuple(renamed))
    paths = figures.write(made, ["svg"])
    names = {p.name.removesuffix(".svg") for p in paths}
    assert {"forest", "curves-val_loss", "cost-peak_memory", "cost-trainable_params", "effects", "tuning", "knockout"} < names
    assert "interaction-knockout-size" in names
    for path in paths:
        ElementTree.parse(path)


def test_formats_and_that_the_same_study_gives_the_same_files(tmp_path: Path) -> None:
    records = tuple(
        replace(r, folder="", trainable_params=None) for r in synthetic.records(tmp_path, {"a": ("x",)}, seeds=2, tuning=0, steps=1)
    )
    made = Digest("s", "val_loss", "minimize", tmp_path, tuple(replace(r, peak_memory=None, cpu_seconds=None) for r in records))
    paths = figures.write(made, figures.formats("png, pdf,svg, png"))
    assert [p.name for p in paths] == [f"{n}.{k}" for n in ("forest", "cost-wall_seconds") for k in figures.FORMATS]
    contents = [p.read_bytes() for p in paths]
    assert [contents[place][:4] for place in (0, 2)] == [b"\x89PNG", b"%PDF"]
    figures.write(made, figures.FORMATS)
    assert contents == [p.read_bytes() for p in paths]
    assert figures.write(made, figures.formats("")) == []


def test_odd_studies_have_the_figures_for_which_there_is_anything(tmp_path: Path) -> None:
    found: dict[str, int] = {}
    for kind in ("one run", "waiting", "failed", "not finite", "empty"):
        (tmp_path / kind).mkdir()
        made = Digest(kind, "val_loss", "minimize", tmp_path / kind, tuple(synthetic.odd(tmp_path / kind, kind)))
        found[kind] = len([path for path in figures.write(made, ["svg"]) if path.name == "forest.svg"])
    assert found == {"one run": 1, "waiting": 0, "failed": 0, "not finite": 0, "empty": 0}
