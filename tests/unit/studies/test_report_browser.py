"""The page in Chromium, from disk, with the network off. Needs playwright and a Chromium of the system; neither is a requirement."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ftlab.studies.report.digest import Digest
from ftlab.studies.report.page import page
from tests.unit.studies import synthetic
from tests.unit.studies.test_report_page import evil

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

READY = "html[data-ready=yes]"
_CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright; `pip install playwright` to look at the page in a browser")
    if _CHROMIUM is None:
        pytest.skip("no Chromium in PATH; install one to look at the page in a browser")
    with driver.sync_playwright() as started:
        found = started.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a study with everything that is drawn."""
    folder = tmp_path_factory.mktemp("study")
    factors = {"knockout": ("whole", "without-a", "only-a"), "size": ("small", "large")}
    records = synthetic.records(folder, factors, seeds=3, tuning=2, steps=10)
    failed = replace(records[4], state="failed", value=None, error="out of memory")
    (folder / "report.html").write_text(page(Digest("s", "val_loss", "minimize", folder, (*records[:4], failed, *records[5:]))))
    return folder / "report.html"


def opened(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> tuple[Page, list[str]]:
    """The page, and everything that its console says."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, offline=True, color_scheme="dark" if scheme == "dark" else "light"
    )
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_selector(READY, state="attached")
    return tab, said


def names(tab: Page, table: str = "variants") -> list[str]:
    found: list[str] = tab.eval_on_selector_all(
        f"#{table}-table tbody tr:not([hidden]) th", "cells => cells.map(c => c.firstChild.textContent)"
    )
    return found


def means(tab: Page) -> list[float]:
    found: list[float] = tab.eval_on_selector_all("#variants-table tbody tr", "rows => rows.map(r => Number(r.cells[2].dataset.v))")
    return found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_and_nothing_is_wider_than_the_screen(browser: Browser, study: Path, width: int, scheme: str) -> None:
    tab, said = opened(browser, study, width, scheme)
    for chart in tab.query_selector_all("figure[data-chart]"):
        chart.scroll_into_view_if_needed()
        chart.wait_for_selector(".canvas svg[role=img]")
        (summary,) = chart.query_selector_all("summary")
        summary.click()
        chart.wait_for_selector(".alternative tbody tr")
    assert len(tab.query_selector_all("figure[data-chart] svg[role=img]")) == 8
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 26)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert said == []
    tab.context.close()


def test_tables_sort_and_filter_and_the_address_keeps_it(browser: Browser, study: Path) -> None:
    tab, said = opened(browser, study)
    assert means(tab) == sorted(means(tab))
    tab.click("#variants-by-mean")
    tab.click("#variants-by-mean")
    assert means(tab) == sorted(means(tab), reverse=True)
    assert tab.get_attribute("th[data-key=mean]", "aria-sort") == "descending"
    tab.fill("[id='variants.q']", "small WITHOUT")
    assert names(tab) == ["without-a-small"]
    assert tab.inner_text("#variants-count") == "1 of 6"
    tab.select_option("[id='trials.state']", "failed")
    assert tab.inner_text("#trials-count") == "1 of 30"
    tab.reload()
    tab.wait_for_selector(READY, state="attached")
    assert names(tab) == ["without-a-small"]
    assert means(tab) == sorted(means(tab), reverse=True)
    assert tab.inner_text("#trials-count") == "1 of 30"
    assert tab.eval_on_selector("figure[data-chart=forest] svg", "node => node.querySelectorAll('.dot').length") == 1
    assert said == []
    tab.context.close()


def test_it_works_by_keyboard(browser: Browser, study: Path) -> None:
    tab, said = opened(browser, study)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "results"
    tab.focus("#variants-by-variant")
    tab.keyboard.press("Enter")
    assert names(tab) == sorted(names(tab))
    assert len(tab.query_selector_all("#variants-table tbody tr[tabindex='0']")) == 1
    tab.focus("#variants-table tbody tr[tabindex='0']")
    here = "document.activeElement.querySelector('th').firstChild.textContent"
    for key, place in (("Home", 0), ("ArrowDown", 1), ("End", -1), ("ArrowUp", -2)):
        tab.keyboard.press(key)
        assert tab.evaluate(here) == names(tab)[place]
    before = tab.evaluate("document.activeElement.querySelector('input').checked")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.querySelector('input').checked") is not before
    assert said == []
    tab.context.close()


def test_charts_draw_the_variants_that_are_chosen(browser: Browser, study: Path) -> None:
    tab, _ = opened(browser, study)
    tab.locator("figure[data-chart=curves]").scroll_into_view_if_needed()
    tab.wait_for_selector("figure[data-chart=curves] .band")
    count = "document.querySelectorAll('figure[data-chart=curves] .band').length"
    assert tab.evaluate(count) == 6
    tab.uncheck("input[data-draw='2']")
    tab.select_option("#choose-metric", "val_accuracy")
    assert tab.evaluate(count) == 5
    assert "val_accuracy" in tab.inner_html("figure[data-chart=curves] .canvas")
    tab.reload()
    tab.wait_for_selector("figure[data-chart=curves] .band")
    assert tab.evaluate(count) == 5
    tab.context.close()


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(Digest("s", "val_loss", "minimize", tmp_path, tuple(evil(tmp_path)))))
    tab, said = opened(browser, path)
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    for chart in tab.query_selector_all("figure[data-chart]"):
        chart.scroll_into_view_if_needed()
    tab.wait_for_selector("figure[data-chart=costs] svg[role=img]")
    for summary in tab.query_selector_all("summary"):
        if summary.is_visible():
            summary.click()
    assert tab.query_selector("img") is None
    assert said == []
    tab.context.close()


def test_a_page_that_is_followed_reads_itself_again_until_it_is_paused(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    records = synthetic.records(tmp_path, {"a": ("x", "y")}, seeds=2, tuning=0, steps=2)
    running = replace(records[0], state="running", value=None)
    path.write_text(page(Digest("s", "val_loss", "minimize", tmp_path, (running, *records[1:])), refresh=1))
    tab, said = opened(browser, path)
    tab.click("#variants-by-variant")
    tab.focus("[id='variants.q']")
    tab.keyboard.type("x")
    path.write_text(page(Digest("s", "val_loss", "minimize", tmp_path, tuple(records)), refresh=1))
    tab.wait_for_selector("#trials-table .state-running", state="detached")
    tab.wait_for_selector("[id='variants.q']:focus")
    assert names(tab) == ["x"]
    tab.check("#pause")
    path.write_text(page(Digest("s", "val_loss", "minimize", tmp_path, (running, *records[1:])), refresh=1))
    tab.wait_for_timeout(1500)
    assert tab.query_selector(".state-running") is None
    assert said == []
    tab.context.close()


def test_odd_studies_are_drawn_without_an_error(browser: Browser, tmp_path: Path) -> None:
    for kind in synthetic.ODD:
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "report.html").write_text(page(Digest(kind, "val_loss", "minimize", folder, tuple(synthetic.odd(folder, kind)))))
        tab, said = opened(browser, folder / "report.html", width=390)
        for chart in tab.query_selector_all("figure[data-chart]"):
            chart.scroll_into_view_if_needed()
            chart.wait_for_selector(".canvas svg[role=img], .canvas p:not(:text('by a script'))")
        wrong = "[...document.querySelectorAll('svg *')].filter(n => [...n.attributes].some(a => /NaN|undef|Infin/.test(a.value))).length"
        assert tab.evaluate(wrong) == 0, kind
        assert tab.evaluate("document.documentElement.scrollWidth") == 390, kind
        assert said == [], kind
        tab.context.close()


def test_without_a_script_the_tables_are_there(browser: Browser, study: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    tab = context.new_page()
    tab.goto(study.as_uri())
    assert tab.locator("#variants-table tbody tr").count() == 6
    assert tab.locator("#trials-table tbody tr").count() == 30
    context.close()
