"""A study goes on with the code that it was begun with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ftlab.errors import ConfigError
from ftlab.studies.identity import settle
from ftlab.studies.storage import connect
from tests.unit.studies.small_study import study


def test_other_plugins_do_not_continue_a_study(tmp_path: Path) -> None:
    spec, mine = study(tmp_path), tmp_path / "mine.py"
    mine.write_text("a = 1")
    store = connect(None, tmp_path)
    begun = settle(store, replace(spec, plugins=(str(mine),)), tmp_path, extend=False)
    assert settle(store, replace(spec, plugins=(str(mine),)), tmp_path, extend=False) == begun
    with pytest.raises(ConfigError, match="been run with other settings: --plugin mine.py is no longer given; undo it, or choose a new"):
        settle(store, spec, tmp_path, extend=True)
    more = replace(spec, plugins=(str(mine), "another.module"))
    with pytest.raises(ConfigError, match="has changed: --plugin another.module is new; add --extend to run what is new"):
        settle(store, more, tmp_path, extend=False)
    settle(store, more, tmp_path, extend=True)
    mine.write_text("a = 2")
    with pytest.raises(ConfigError, match="other settings: the code of --plugin mine.py is another; undo it"):
        settle(store, more, tmp_path, extend=True)


def test_a_study_that_was_stored_without_its_plugins_opens(tmp_path: Path) -> None:
    spec, mine = study(tmp_path), tmp_path / "mine.py"
    mine.write_text("a = 1")
    store = connect(None, tmp_path)
    store.study("s/seeds", "minimize").set_user_attr("ftlab", {"document": spec.document, "base": spec.base_content})
    settle(store, replace(spec, plugins=(str(mine),)), tmp_path, extend=False)
    with pytest.raises(ConfigError, match="--plugin mine.py is no longer given"):
        settle(store, spec, tmp_path, extend=False)
