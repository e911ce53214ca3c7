"""The page as a file: it asks for nothing, and what runs have left in it is text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from scipy import stats

from ftlab.errors import SecurityError
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.page import page
from ftlab.studies.report.repeat import commands
from tests.unit.studies import synthetic

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`=1+1\x1b[31m\u202e<!--"
_FETCHING = ("src", "srcset", "data", "action", "poster", "background")


class Page(HTMLParser):
    """Tags, and the text of scripts and styles."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.inside.setdefault(self._open, []).append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def evil(folder: Path) -> list[TrialRecord]:
    """A study in which every text that a run can set is hostile."""
    made = synthetic.records(folder, {"model.tuning": ("LoRA", "Full"), "size": ("small", "large")}, seeds=2, tuning=2, steps=3)
    for r in made:
        place = folder / r.folder
        (place / "metrics.jsonl").write_text(json.dumps({"step": 1, f"val_{EVIL}": 1.0, "val_loss": 0.5}) + "\n")
        (place / "versions.json").write_text(
            json.dumps({"packages": {EVIL: EVIL}, "git": {"commit": EVIL}, "fingerprints": {"data": EVIL}})
        )
        (place / "config.yaml").write_text(f"# {EVIL}")
        place.with_name(f"{place.name}.log").write_text(EVIL)
    (folder / "study.yaml").write_text(f"# ftlab ablate --config study.yaml --plugin '{EVIL}'\n")
    bad = [
        replace(
            r, variant=f"{r.variant}{EVIL}", levels={f"{k}{EVIL}": f"{v}{EVIL}" for k, v in r.levels.items()}, error=EVIL,
            settings={EVIL: EVIL}, tuned={EVIL: 1.0}, metrics={EVIL: 1.0},
        )
        for r in made
    ]  # fmt: skip
    return [replace(r, state="failed", value=None) if n % 4 == 3 else r for n, r in enumerate(bad)]


@pytest.fixture
def content(tmp_path: Path) -> str:
    return page(Digest(EVIL, f"val_loss{EVIL}", "minimize", tmp_path, tuple(evil(tmp_path))), refresh=5)


def test_hostile_text_stays_text(content: str) -> None:
    found = Page(content)
    names = [tag for tag, _ in found.tags]
    assert "img" not in names
    assert [a.get("type") for tag, a in found.tags if tag == "script"] == ["application/json", None]
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", content)
    data = json.loads("".join(found.inside["script"][:1]))
    assert data["variants"][0]["name"].endswith(EVIL)
    assert content.count("<!--") == 0


def test_the_page_asks_for_nothing(content: str) -> None:
    found = Page(content)
    for tag, attributes in found.tags:
        assert not [key for key in _FETCHING if attributes.get(key)], (tag, attributes)
        link = attributes.get("href") or "#"
        assert link.startswith(("#", "data:"))
    assert "url(" not in "".join(found.inside["style"])
    assert "@import" not in "".join(found.inside["style"])


def test_the_policy_names_the_one_script_and_style(content: str) -> None:
    found = Page(content)
    policy = next(a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'")
    for kind, text in (("script", found.inside["script"][-1]), ("style", found.inside["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_every_control_and_chart_has_a_name_and_every_id_is_there_once(content: str) -> None:
    found = Page(content)
    ids = [a["id"] for _, a in found.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in found.tags if tag == "a"]
    assert {link[1:] for link in links if link} <= set(ids)
    for tag, attributes in found.tags:
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in ids
        assert tag != "th" or attributes.get("scope") in ("row", "col")
    headings = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))


def test_what_is_needed_to_repeat_it(tmp_path: Path) -> None:
    records = synthetic.records(tmp_path, {"model.tuning": ("LoRA",)}, seeds=2, tuning=0, steps=1)
    for number, r in enumerate(records):
        versions = {
            "packages": {"torch": f"2.{number}"},
            "git": {"commit": "c0ffee", "changed": True},
            "fingerprints": {"data": "d1d1", "base": "b2b2"},
        }
        (tmp_path / r.folder / "versions.json").write_text(json.dumps(versions))
    (tmp_path / "study.yaml").write_text(
        "# ftlab ablate --config study.yaml --plugin mine.py\nname: s\nkey: hf_abcdefghijklmnopqrstuvwxyz\n"
    )
    content = page(Digest("s", "val_loss", "minimize", tmp_path, tuple(records)))
    seen = "/".join(tmp_path.parts[-2:])  # the runs have not written down where they were kept
    assert f"ftlab ablate --config {seen}/study.yaml --root again --plugin mine.py<" in content
    assert f"ftlab fit --config {seen}/runs/LoRA/seed-1/config.yaml --run.root again --plugin mine.py<" in content
    assert "Commands are for the folder in which the study was begun" in content
    assert "commit c0ffee, with changes that are not committed" in content
    assert "<dd>d1d1</dd>" in content
    assert "1 runs: torch 2.0" in content
    assert "1 runs: torch 2.1" in content
    assert "hf_abc" not in content
    assert 'http-equiv="refresh"' not in content


def test_commands_are_for_the_folder_where_the_study_was_begun(tmp_path: Path) -> None:
    records = synthetic.records(tmp_path, {"model.tuning": ("LoRA",)}, seeds=2, tuning=0, steps=1)
    (tmp_path / "study.yaml").write_text("# ftlab ablate --config study.yaml --plugin sub/mine.py\nname: s\n")
    (tmp_path / records[0].folder / "config.yaml").write_text("run: {root: 7}")
    (tmp_path / records[1].folder / "config.yaml").write_text("run: {root: out/my studies/s/runs}")
    found = commands(Digest("s", "val_loss", "minimize", tmp_path, tuple(records)))
    assert found.study == "ftlab ablate --config 'out/my studies/s/study.yaml' --root again --plugin sub/mine.py"
    assert found.trial("runs/LoRA/seed-1") == (
        "ftlab fit --config 'out/my studies/s/runs/LoRA/seed-1/config.yaml' --run.root again --plugin sub/mine.py"
    )


@pytest.mark.parametrize("place", ["../../elsewhere", "/etc", "runs/../../x"])
def test_nothing_outside_of_the_study_is_read(place: str, tmp_path: Path) -> None:
    first = synthetic.records(tmp_path, seeds=1, tuning=0, steps=1)[0]
    with pytest.raises(SecurityError, match="outside of the study's folder"):
        Digest("s", "val_loss", "minimize", tmp_path, (replace(first, folder=place),))


def test_methods_are_ranked_where_a_factor_holds_data_sets(tmp_path: Path) -> None:
    factors = {"model.tuning": ("Full", "LoRA", "PromptTuning"), "corpus": ("a", "b", "c", "d")}
    records = synthetic.records(tmp_path, factors, seeds=2, tuning=1, steps=1)
    plain = page(Digest("s", "val_loss", "minimize", tmp_path, tuple(records)))
    assert "Ranks over" not in plain
    paths = [
        replace(r, settings={"model.tuning": r.levels["model.tuning"], "data.source.init_args.path": r.levels["corpus"], **r.tuned})
        for r in records
    ]
    content = page(Digest("s", "val_loss", "minimize", tmp_path, tuple(paths)))
    assert "Ranks over corpus" in content
    table = [
        [r.value or 0.0 for r in records if r.phase == "seeds" and r.levels == {"model.tuning": m, "corpus": c}]
        for c in "abcd"
        for m in factors["model.tuning"]
    ]
    ranks = stats.rankdata([[sum(s) for s in table[n : n + 3]] for n in range(0, 12, 3)], axis=1).mean(0)
    for name, mean in zip(factors["model.tuning"], ranks, strict=True):
        assert f'<th scope="row">{name}</th><td class="number">{mean:.4g}</td>' in content
    two = [r for r in paths if r.levels["model.tuning"] != "LoRA"]
    assert "No ranking: ranks need at least 3 methods" in page(Digest("s", "val_loss", "minimize", tmp_path, tuple(two)))
