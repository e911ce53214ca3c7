"""Hub datasets: a folder, the library's cache with the hub switched off, and a hub that does not answer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import datasets
import huggingface_hub
import pyarrow as pa
import pytest

from ftlab.data.sources.hub_dataset import HubDataset
from ftlab.errors import ConfigError, DataError, EnvironmentFault

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    switch_hub(monkeypatch, offline=True)
    return tmp_path


def switch_hub(monkeypatch: pytest.MonkeyPatch, *, offline: bool, endpoint: str = "http://127.0.0.1:9") -> None:
    for constants in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    # The client waits between its attempts.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def write(name: str, content: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(content, encoding="utf-8")


def cache_dataset(root: Path, commit: str, texts: list[str]) -> None:
    """What the library leaves behind after somebody/tiny was read from the hub once."""
    folder = root / "cache" / "somebody___tiny" / "default" / "0.0.0" / commit
    folder.mkdir(parents=True)
    table = pa.table({"text": texts})
    with pa.ipc.new_stream(str(folder / "tiny-train.arrow"), table.schema) as writer:
        writer.write_table(table)
    split = {"name": "train", "num_bytes": 1, "num_examples": len(texts), "dataset_name": "tiny"}
    features = {"text": {"dtype": "string", "_type": "Value"}}
    info = {"builder_name": "json", "config_name": "default", "dataset_name": "tiny", "splits": {"train": split}, "features": features}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def sentence(source: HubDataset, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        list(source.rows(split))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_read_split_by_split() -> None:
    write("text/train.jsonl", '{"text": "a", "n": [1]}\n{"text": "b", "n": [2]}\n')
    write("text/test.jsonl", '{"text": "c", "n": []}\n')
    # `text` is also the name of a reader inside the library.
    source = HubDataset(path="text")
    assert source.splits() == ("train", "test")
    assert list(source.rows("train")) == [{"text": "a", "n": [1]}, {"text": "b", "n": [2]}]
    assert list(source.rows("test")) == [{"text": "c", "n": []}]
    assert sentence(source, "trian") == "text has no split 'trian'; did you mean train? its splits are train, test."
    with pytest.raises(DataError, match="has no split 'dev'"):
        source.fingerprint("dev")


def test_a_folders_fingerprint_follows_its_rows() -> None:
    write("d/train.jsonl", '{"text": "a"}\n')
    before = HubDataset(path="d").fingerprint("train")
    os.utime("d/train.jsonl", (1, 1))
    os.rename("d", "e")
    assert HubDataset(path="e").fingerprint("train") == before
    write("e/train.jsonl", '{"text": "b"}\n')
    assert HubDataset(path="e").fingerprint("train") != before


def test_a_folder_that_cannot_be_read_is_named() -> None:
    write("d/train.jsonl", '{"text": "a"}\n{"text": \n')
    found = sentence(HubDataset(path="d"))
    assert found.startswith("d: its rows cannot be read (")
    assert found.endswith("); mend the data, or name another dataset.")
    os.mkdir("empty")
    assert sentence(HubDataset(path="empty")).startswith("empty: its rows cannot be read (")
    write("text/train.jsonl", '{"text": "a"}\n{"text": "\\u0000"}\n')
    assert sentence(HubDataset(path="text")) == (
        "text, split 'train': row 2: column 'text' holds a NUL character, which is not text; mend or remove the row."
    )


def test_an_empty_split_has_no_rows(offline: Path) -> None:
    cache_dataset(offline, COMMIT, [])
    found = sentence(HubDataset(path="somebody/tiny"))
    assert found == "somebody/tiny, split 'train', has no rows; name data with at least one row."


def test_code_of_a_dataset_is_not_run() -> None:
    write("evil/evil.py", "open('ran', 'w').close()\n")
    write("evil/train.jsonl", '{"text": "a"}\n')
    assert "scripts are no longer supported" in sentence(HubDataset(path="evil"))
    assert not os.path.exists("ran")


def test_a_missing_configuration_name_lists_those_there_are() -> None:
    write("d/README.md", "---\nconfigs:\n- config_name: one\n  data_files: a.jsonl\n- config_name: two\n  data_files: b.jsonl\n---\n")
    write("d/a.jsonl", '{"text": "a"}\n')
    write("d/b.jsonl", '{"text": "b"}\n')
    for name, was in ((None, "not set"), ("three", "'three'")):
        with pytest.raises(ConfigError) as caught:
            HubDataset(path="d", name=name).splits()
        assert str(caught.value) == f"d: name is {was}; set it to one of the dataset's configurations: one, two."
    assert list(HubDataset(path="d", name="two").rows("train")) == [{"text": "b"}]


@pytest.mark.parametrize("path", ["", "json", "https://example.org/a.csv", "a/b/c", "../x", "hf://buckets/a/b", "file.csv", "d/file.csv"])
def test_a_path_is_a_folder_or_a_hub_id(path: str) -> None:
    write("file.csv", "a\n1\n")
    write("d/file.csv", "a\n1\n")
    with pytest.raises(ConfigError, match="neither a folder here nor a hub id such as owner/name"):
        HubDataset(path=path)


def test_a_folder_has_no_revision() -> None:
    os.mkdir("d")
    with pytest.raises(ConfigError) as caught:
        HubDataset(path="d", revision="main")
    assert str(caught.value) == "revision is 'main' and d is a folder; only the hub has revisions, leave it out."


def test_the_cache_serves_what_it_holds_and_no_other_revision(offline: Path) -> None:
    cache_dataset(offline, COMMIT, ["x", "y"])
    source = HubDataset(path="somebody/tiny", revision=COMMIT)
    assert source.splits() == ("train",)
    assert list(source.rows("train")) == [{"text": "x"}, {"text": "y"}]
    assert list(HubDataset(path="somebody/tiny").rows("train")) == [{"text": "x"}, {"text": "y"}]
    with pytest.raises(EnvironmentFault) as caught:
        list(HubDataset(path="somebody/tiny", revision="v2").rows("train"))
    assert str(caught.value) == (
        f"somebody/tiny: the Hugging Face hub cannot be reached and the local cache holds commit {COMMIT}, not revision 'v2'; "
        "check the network, or set revision to that commit."
    )


def test_a_hub_fingerprint_is_the_commits(offline: Path) -> None:
    cache_dataset(offline, COMMIT, ["x", "y"])
    before = HubDataset(path="somebody/tiny").fingerprint("train")
    assert HubDataset(path="somebody/tiny", revision=COMMIT).fingerprint("train") == before
    folder = offline / "cache" / "somebody___tiny" / "default" / "0.0.0"
    os.rename(folder / COMMIT, folder / ("f" * 40))
    assert HubDataset(path="somebody/tiny").fingerprint("train") != before


def unreachable(source: HubDataset) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        source.splits()
    assert caught.value.exit_code == 6
    return str(caught.value)


def test_a_hub_that_is_switched_off_or_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (
        "somebody/else: the Hugging Face hub cannot be reached and the local cache does not hold its rows; "
        "check the network, or name a local folder."
    )
    source = HubDataset(path="somebody/else")
    assert unreachable(source) == expected
    switch_hub(monkeypatch, offline=False)
    assert unreachable(source) == expected


@pytest.fixture
def answering_hub() -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine that answers every request with the error put first in the list."""
    errors: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403 if errors[0] == "GatedRepo" else 404)
            self.send_header("X-Error-Code", errors[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", errors
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("RepoNotFound", "Dataset 'somebody/absent' doesn't exist on the Hub or cannot be accessed"),
        ("RevisionNotFound", "Revision 'v1' doesn't exist for dataset 'somebody/absent' on the Hub"),
        ("GatedRepo", "Dataset 'somebody/absent' is a gated dataset on the Hub."),
    ],
)
def test_what_the_hub_refuses_is_a_config_error(
    answering_hub: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, error: str, reason: str
) -> None:
    endpoint, errors = answering_hub
    errors.append(error)
    switch_hub(monkeypatch, offline=False, endpoint=endpoint)
    with pytest.raises(ConfigError) as caught:
        HubDataset(path="somebody/absent", revision="v1").splits()
    assert str(caught.value).startswith(f"somebody/absent: the hub does not give it ({reason}")
    assert str(caught.value).endswith("); check path and revision, and set HF_TOKEN if it is private or gated.")
