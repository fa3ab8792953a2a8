"""Tells people how a run ended: a command of theirs, a webhook, or both; the queue never waits for either."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ganeum.errors import ConfigError

COMMAND, WEBHOOK = "GANEUM_NOTIFY_COMMAND", "GANEUM_NOTIFY_WEBHOOK"  # in the environment, or in .env
PATIENCE_S = 30.0  # for one command or one answer
AT_THE_END_S = 10.0  # how long the end of the queue waits for what is still to be told
MOST_WAITING = 1_000
DISCORD = 2_000  # characters that it takes; it refuses what is longer


@dataclass(frozen=True)
class Message:
    """One thing to tell.

    Attributes:
        text: a sentence for a person.
        facts: for a program: id, name, state, note, …; all of it goes into JSON.
    """

    text: str
    facts: Mapping[str, Any]


class Notifier:
    """Hands messages on from a thread of its own. One that cannot be told costs a line of `say` and nothing else.

    Args:
        command: run by the shell, with the message as JSON on its standard input, its sentence as $GANEUM_TEXT and
            each fact as $GANEUM_NAME, $GANEUM_STATE, ….
        webhook: an http(s) address that takes a POST of JSON; `text` and `content` hold the sentence, where Slack,
            Mattermost and Discord look for it, and `run` the facts.
        say: takes a line for the queue's own log.
    """

    def __init__(self, command: str | None, webhook: str | None, say: Callable[[str], object]) -> None:
        if webhook is not None and not webhook.startswith(("http://", "https://")):
            raise ConfigError("a webhook is an address that begins with https://", where="--webhook")
        self.command, self.webhook, self._say = command or None, webhook, say
        self._waiting: queue.Queue[Message | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
        if self.listens:
            self._thread.start()

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self.command or self.webhook)

    def tell(self, text: str, **facts: Any) -> None:
        """Returns at once; what comes faster than it can be told is dropped beyond 1,000 messages."""
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put_nowait(Message(text, facts))
        except queue.Full:
            self._say("nobody was told: 1,000 messages wait already")

    def close(self, patience_s: float = AT_THE_END_S) -> None:
        """Waits a little for what is still to be told."""
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=patience_s)
            except queue.Full:
                return
            self._thread.join(patience_s)

    def _work(self) -> None:
        while (message := self._waiting.get()) is not None:
            for what, tell in (("command", self._run), ("webhook", self._post)):
                try:
                    tell(message)
                except Exception as error:  # whatever it is: the queue goes on
                    self._say(f"the {what} that tells people failed: {_said(error)}")

    def _run(self, message: Message) -> None:
        if self.command is None:
            return
        names = {f"GANEUM_{key.upper()}": str(value) for key, value in message.facts.items() if value is not None}
        subprocess.run(
            self.command,
            shell=True,
            input=json.dumps({"text": message.text, **message.facts}).encode(),
            env={**os.environ, **names, "GANEUM_TEXT": message.text},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=True,
            start_new_session=True,
        )

    def _post(self, message: Message) -> None:
        if self.webhook is None:
            return
        content = message.text[:DISCORD]
        body = json.dumps({"text": message.text, "content": content, "run": dict(message.facts)}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "ganeum"}
        request = urllib.request.Request(self.webhook, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S):
            pass


def from_surroundings(name: str) -> str | None:
    """What the environment, else `.env` where the user stands, says for `name`."""
    from dotenv import dotenv_values

    return os.environ.get(name) or dotenv_values(".env").get(name) or None


def _said(error: Exception) -> str:
    """A sentence without the address: a webhook's is a secret."""
    if isinstance(error, subprocess.CalledProcessError):
        last = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"exit status {error.returncode}" + (f": {last[-1]}" if last else "")
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no end after {PATIENCE_S:.0f} s"
    reason = getattr(error, "reason", None)
    return str(reason) if reason else type(error).__name__
