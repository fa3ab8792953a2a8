"""A hub on this machine: directories served under the addresses that huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


@contextmanager
def serving(root: Path) -> Iterator[tuple[str, list[str]]]:
    """``root/NAME`` as the model ``tiny/NAME``, and as ``NAME`` → the hub's address, and what was fetched from it."""
    fetched: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(send=False)

        def do_GET(self) -> None:
            self.answer(send=True)

        def answer(self, *, send: bool) -> None:
            path = self.path.partition("?")[0]
            if file := re.fullmatch(r"(?:/tiny)?/([^/]+)/resolve/[^/]+/(.+)", path):
                place, headers = root / file[1] / file[2], {"X-Repo-Commit": COMMIT}
                content = place.read_bytes() if place.is_file() else None
                if content is not None and send:
                    fetched.append(file[2])
            else:
                content, headers = self.about(path), {"Content-Type": "application/json"}
            known = path == "/" or any(f"/{name.name}/" in f"{path}/" for name in root.iterdir() if name.is_dir())
            self.send_response(404 if content is None else 200)
            if content is None:
                headers["X-Error-Code"] = "EntryNotFound" if known else "RepoNotFound"
            else:
                headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            for name, value in (headers | {"Content-Length": str(len(content or b""))}).items():
                self.send_header(name, value)
            self.end_headers()
            if send and content:
                self.wfile.write(content)

        def about(self, path: str) -> bytes | None:
            asked = re.fullmatch(r"/api/models(?:/tiny)?/([^/]+)(/tree/[^/]+)?", path)
            if asked is None or not (root / asked[1]).is_dir():
                return b"{}" if path == "/" else None
            names = sorted(file.name for file in (root / asked[1]).iterdir())
            if asked[2]:
                found: object = [{"type": "file", "path": name, "size": 1, "oid": COMMIT} for name in names]
            else:
                siblings = [{"rfilename": name} for name in names]
                found = {"id": f"tiny/{asked[1]}", "sha": COMMIT, "private": False, "siblings": siblings}
            return json.dumps(found).encode()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", fetched
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
