"""Telling people: a command, a webhook, and neither of them the queue's trouble."""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ganeum.errors import ConfigError
from ganeum.queue.notify import WEBHOOK, Notifier, from_surroundings

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the commands are a POSIX shell's")


def test_a_command_gets_the_sentence_and_the_facts(tmp_path: Path) -> None:
    """JSON on standard input, the sentence and each fact in the environment."""
    notifier = Notifier(f"cat > {tmp_path}/in; echo $GANEUM_TEXT $GANEUM_STATE > {tmp_path}/env", None, print)
    notifier.tell("exp1 finished", id=3, state="finished", note=None)
    notifier.close()
    assert {"text": "exp1 finished", "id": 3, "state": "finished", "note": None} == json.loads(
        (tmp_path / "in").read_text()
    )
    assert "exp1 finished finished\n" == (tmp_path / "env").read_text()


def test_a_webhook_gets_a_post() -> None:
    """`text` for Slack and Mattermost, `content` for Discord, the facts under `run`."""
    got: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    notifier = Notifier(None, f"http://127.0.0.1:{server.server_port}/hook", print)
    notifier.tell("exp1 failed: NaN", name="exp1", state="failed")
    notifier.close()
    server.server_close()
    assert [
        {
            "text": "exp1 failed: NaN",
            "content": "exp1 failed: NaN",
            "run": {"name": "exp1", "state": "failed"},
        }
    ] == got


def test_what_fails_is_a_line_without_the_address() -> None:
    """A webhook that nobody answers and a command that ends badly: a line each, no exception, no secret."""
    said: list[str] = []
    notifier = Notifier("echo no such room >&2; exit 3", "http://127.0.0.1:9/secret", said.append)
    notifier.tell("x")
    notifier.close()
    assert said == [
        "the command that tells people failed: exit status 3: no such room",
        "the webhook that tells people failed: [Errno 111] Connection refused",
    ]


def test_a_command_that_hangs_does_not_hold_the_queue() -> None:
    """`tell` returns at once, and `close` waits no longer than it is given."""
    notifier = Notifier("sleep 20", None, print)
    before = time.monotonic()
    notifier.tell("x")
    notifier.close(patience_s=0.2)
    assert time.monotonic() - before < 10


def test_an_address_is_checked_at_once() -> None:
    """What is no address is told before the night, not after it."""
    with pytest.raises(ConfigError, match="a webhook is an address that begins with https://"):
        Notifier(None, "hooks.slack.com/x", print)


def test_the_address_may_stand_in_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment first, then `.env` where the user stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(WEBHOOK, raising=False)
    assert from_surroundings(WEBHOOK) is None
    Path(".env").write_text(f"{WEBHOOK}=https://a\n")
    assert "https://a" == from_surroundings(WEBHOOK)
    monkeypatch.setenv(WEBHOOK, "https://b")
    assert "https://b" == from_surroundings(WEBHOOK)
