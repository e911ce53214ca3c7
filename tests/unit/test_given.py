"""From options and files to dotted keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlab.errors import ConfigError
from ftlab.given import COMMAND_LINE, Given, given, take


def pairs(*arguments: str) -> list[tuple[str, object]]:
    found = given(arguments)
    assert all(isinstance(g, Given) and g.origin == COMMAND_LINE for g in found)
    return [(g.key, g.value) for g in found]


def test_both_ways_of_writing_an_option() -> None:
    assert pairs("--a.b=1", "--a.c", "x", "--a.d=", "--a.e=k=v") == [("a.b", 1), ("a.c", "x"), ("a.d", None), ("a.e", "k=v")]


def test_negative_numbers_are_values() -> None:
    assert pairs("--a", "-1", "--b=-2.5", "--c", "-1e-3") == [("a", -1), ("b", -2.5), ("c", "-1e-3")]


def test_mappings_are_taken_apart_and_plugins_keep_their_fields_whole() -> None:
    assert pairs("--model.tuning", '{"class_path": "LoRA", "init_args": {"rank_pattern": {"q": 1}}}') == [
        ("model.tuning.class_path", "LoRA"),
        ("model.tuning.init_args.rank_pattern", {"q": 1}),
    ]
    assert pairs("--trainer", "{max_steps: 1, callbacks: [{class_path: X}]}") == [
        ("trainer.max_steps", 1),
        ("trainer.callbacks", [{"class_path": "X"}]),
    ]
    assert pairs("--model.optimizer", "{class_path: X, init_args: {lr: 1}}") == [
        ("model.optimizer", {"class_path": "X", "init_args": {"lr": 1}})
    ]


@pytest.mark.parametrize("text", [r".*\.q_proj", "*", "[qv]_proj", "{not yaml", "a: b: c", "&x", "!!python/name:os.system", "'"])
def test_what_is_no_yaml_is_text(text: str) -> None:
    assert pairs("--a", text) == [("a", text)]


def test_lists_grow_by_plus() -> None:
    assert pairs("--a+=x", "--a+", "y", "--b", "[1, 2]") == [("a+", "x"), ("a+", "y"), ("b", [1, 2])]


def test_a_file_stands_where_it_was_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("model: {tuning: {class_path: LoRA, init_args: {r: 2}}}\ntrainer: {max_steps: 3}\n")
    for option in (["--config", str(path)], [f"--config={path}"], ["-c", str(path)]):
        found = given(["--trainer.max_steps", "1", *option, "--trainer.max_steps", "2"])
        assert [(g.key, g.value, g.origin) for g in found] == [
            ("trainer.max_steps", 1, COMMAND_LINE),
            ("model.tuning.class_path", "LoRA", str(path)),
            ("model.tuning.init_args.r", 2, str(path)),
            ("trainer.max_steps", 3, str(path)),
            ("trainer.max_steps", 2, COMMAND_LINE),
        ]


def test_a_value_that_is_missing() -> None:
    assert pairs("--help", "--print_config", "--model.tuning.help") == [("help", None), ("print_config", None), ("model.tuning.help", None)]
    with pytest.raises(ConfigError, match=r"^--a needs a value; write --a VALUE\.$"):
        given(["--a", "--b", "1"])


def test_take() -> None:
    assert take(["--x", "1", "--plugin", "a.py", "--plugin=b", "--y=2"], "--plugin") == (["--x", "1", "--y=2"], ["a.py", "b"])
    with pytest.raises(ConfigError, match="^--plugin needs a value"):
        take(["--plugin"], "--plugin")
