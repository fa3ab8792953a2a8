"""A config to ask about in a directory of its own, and `ganeum plan` as it is typed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.cli import main

CONFIG = """\
model: {n_layer: 12, n_head: 12, n_embd: 768, block_size: 1024, vocab_size: 50257}
data: {directory: nothing/here}
train: {batch_size: 64, max_iters: 1000, eval_tokens: 65536}
"""


@pytest.fixture(autouse=True)
def run_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run.yaml").write_text(CONFIG)
    return tmp_path / "run.yaml"


def typed(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `ganeum plan`."""
    with pytest.raises(SystemExit) as end:
        main(["plan", *arguments])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err
