"""`--json` of every command: what it prints is JSON and has the keys that the page names."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.cli.queue import COMMANDS
from ganeum.queue.entry import Entry
from ganeum.queue.progress import Progress
from ganeum.queue.rows import Event
from ganeum.queue.store import Store

PAGE = (Path(__file__).parents[2] / "docs" / "queue.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("\n## JSON") :].split("\n## ")[1]
ENTRY = {field.name for field in fields(Entry)} | {"progress"}
# In this order, so that each finds what it needs; `experiments` trains, and is tested where that is.
CALLS = {
    "add": "one.yaml two.yaml three.yaml",
    "list": "",
    "show": "1",
    "edit": "1 --priority 1",
    "move": "1 --last",
    "pause": "1 2",
    "watch": "--once",
    "resume": "1",
    "kill": "1",
    "retry": "1",
    "run": "",
    "log": "3",
    "wait": "3",
    "summary": "",
    "remove": "2",
    "clean": "",
    "install": "--print",
    "rebuild": "",
}
OTHERS = {"show": ENTRY | {"events"}, "log": {"line"}, "install": {"name", "unit"}, "rebuild": {"aside", "entries"}}


def test_every_command_prints_json_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list of entries, or what the page says; each entry with all of its keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    for name in ("one", "two", "three"):
        Path(f"{name}.yaml").write_text("train: {max_iters: 10}\n")
    assert set(COMMANDS) == set(CALLS) | {"experiments"}
    for command, words in CALLS.items():
        with pytest.raises(SystemExit) as exit:
            main(["queue", command, *words.split(), "--json"])
        assert not exit.value.code, command
        found = json.loads(capsys.readouterr().out)
        if command in OTHERS:
            assert OTHERS[command] == set(found), command
        else:
            assert isinstance(found, list), command
            assert all(set(entry) == ENTRY for entry in found), command
            assert found or command in ("run", "clean"), command
        with Store.default() as store:  # what the rest needs: nothing to train, and a log
            if command == "retry":
                store.update(1, state="paused")
                store.update(3, state="finished", attempts=1, ended_at=time.time())
                store.run(store.get(3)).queue_log_path.write_text("step 1\n")


def test_the_page_names_every_key() -> None:
    """Of an entry, of its progress, of an event; and nothing that is no key."""
    keys = ENTRY | {field.name for kind in (Progress, Event) for field in fields(kind)}
    said = set(SECTION.split("`")[1::2])
    others = {"--json", "null", "events", *COMMANDS, *(key for names in OTHERS.values() for key in names)}
    assert not keys - said
    assert not said - keys - others - {"path", "left_to_do", "removed"}


def test_an_error_is_text_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and nothing on standard output, as of every command of ganeum."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    with pytest.raises(SystemExit) as exit:
        main(["queue", "show", "7", "--json"])
    out, err = capsys.readouterr()
    assert (2, "") == (exit.value.code, out)
    assert err.startswith("QueueError: there is no queue here yet\n")
