"""A Hugging Face hub with one model, which can stop in the middle of its weights."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The server.

    Args:
        folder: The model.
        stalls: Send half of the weights, then nothing.
        half: Set when that has happened.
    """

    folder: Path
    stalls: bool = False
    address: str = ""
    half: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/"):
                facts = [{"type": "file", "oid": "0" * 40, "size": p.stat().st_size} for p in sorted(hub.folder.iterdir())]
                files = [{"rfilename": p.name, "path": p.name, **f} for p, f in zip(sorted(hub.folder.iterdir()), facts, strict=True)]
                value = files if "/tree/" in path else {"id": "someone/tiny", "sha": COMMIT, "siblings": files}
                return self._send(json.dumps(value).encode(), body, 0, "application/json")
            file = hub.folder / path.rpartition("/")[2]
            if not file.is_file() or "/resolve/" not in path:
                self.send_response(200 if path == "/" else 404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            return self._send(file.read_bytes(), body, first, "application/octet-stream")

        def _send(self, content: bytes, body: bool, first: int, kind: str) -> None:
            self.send_response(206 if first else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if not body:
                return
            if hub.stalls and self.path.partition("?")[0].endswith(".safetensors"):
                self.wfile.write(content[first : len(content) // 2])
                self.wfile.flush()
                hub.half.set()
                hub.over.wait()
                return
            self.wfile.write(content[first:])

    return Handler


@contextmanager
def hub(folder: Path) -> Iterator[Hub]:
    """Serve a model as `someone/tiny`, for as long as the block lasts.

    Args:
        folder: Its files.
    """
    running = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(running))
    server.daemon_threads = True
    running.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
