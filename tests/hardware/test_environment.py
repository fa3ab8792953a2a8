"""environment.json: what a run was made with, and no secret."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeum.hardware import environment
from ganeum.hardware.environment import DIFF_LIMIT, secrets, without_secrets


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("lr = 1\n")
    (tmp_path / "__init__.py").touch()
    (tmp_path / ".gitignore").write_text(".env\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_what_is_in_it(repository: Path) -> None:
    """Versions, machine, seed, the commit and what was changed since."""
    (repository / "train.py").write_text("lr = 2\n")
    (repository / "new.py").write_text("")
    found = environment(7, source=repository)
    assert json.loads(json.dumps(found)) == found
    assert found["seed"] == 7
    assert {"torch", "numpy"} <= set(found["packages"])  # type: ignore[call-overload]
    code = found["git"]
    assert isinstance(code, dict)
    assert len(code["commit"]) == 40
    assert "-lr = 1\n+lr = 2\n" in code["diff"]
    assert code["untracked"] == ["new.py"]


def test_outside_a_repository(tmp_path: Path) -> None:
    """Where there is no repository there is no commit, and no error."""
    found = environment(1, tmp_path, tmp_path)
    assert (None, None) == (found["git"], found["git_of_working_directory"])


def test_whose_repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`git` is that of ganeum's own code, also seen from another repository, which stands beside it; a wheel that was
    installed into somebody's repository is not that repository's code."""
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "first")
    (other / "lib").mkdir()
    (other / "lib/__init__.py").touch()
    seen = {name: git_of(name) for name in (repository, other)}
    inside, beside, wheel = (
        environment(1, here, source)
        for here, source in ((repository, repository), (other, repository), (other, other / "lib"))
    )
    assert (seen[repository], None) == (commit(inside["git"]), commit(inside["git_of_working_directory"]))
    assert (seen[repository], seen[other]) == (commit(beside["git"]), commit(beside["git_of_working_directory"]))
    assert (None, seen[other]) == (commit(wheel["git"]), commit(wheel["git_of_working_directory"]))


def git_of(directory: Path) -> str:
    words = ["git", "rev-parse", "HEAD"]
    return subprocess.run(words, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


def commit(recorded: object) -> object:
    return recorded["commit"] if isinstance(recorded, dict) else recorded


def test_no_secret_in_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key from the environment or from .env is in no field, wherever it was written: diff, command, variables."""
    monkeypatch.setenv("WANDB_API_KEY", "aaaa1111bbbb2222")
    monkeypatch.setenv("HF_HOME", "/cache/dddd4444")
    monkeypatch.setattr("sys.argv", ["train.py", "--key", "aaaa1111bbbb2222"])
    (repository / ".env").write_text('SOME_URL="https://user:cccc3333@host"\nSHORT=1\nPIN_SECRET=dddd4444\n')
    (repository / "train.py").write_text(
        'key = "aaaa1111bbbb2222"\nurl = "https://user:cccc3333@host"\nHF_TOKEN = "not known to anyone"\nlr = 1\n'
    )
    text = json.dumps(environment(1, repository))
    for secret in ("aaaa1111", "cccc3333", "dddd4444", "not known to anyone"):
        assert secret not in text
    assert "lr = 1" in text


TOKEN = "AbCdEfGhIjKlMnOpQrStUvWxYz012345"  # of no one's


@pytest.mark.parametrize(
    "line",
    [
        'wandb_api_key = "aaaa1111"',
        "password: hunter2hunter2",
        '"Authorization": "Basic aaaa1111"',
        f'login("hf_{TOKEN}")',
        f'client("sk-proj-{TOKEN}")',
        f'"ghp_{TOKEN}", "github_pat_{TOKEN}"',
        "AKIA" + TOKEN[:16].upper(),
        "xoxb-" + "1234567890-abc",
        f'headers("Bearer {TOKEN}")',
        f"curl --api-key {TOKEN}",
        "https://user:pw@host/x",
        f"-----BEGIN RSA PRIVATE KEY-----\n{TOKEN}\naaaa1111==\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{TOKEN}\naaaa1111==",
    ],
)
def test_no_secret_by_its_looks(repository: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """What nobody registered as a secret but looks like one is in no field: diff, command, variables."""
    monkeypatch.setenv("HF_ENDPOINT", line)
    monkeypatch.setattr("sys.argv", ["train.py", line])
    (repository / "train.py").write_text(f"{line}\nlr = 3\n")
    text = json.dumps(environment(1, repository))
    for secret in ("aaaa1111", "hunter2", TOKEN, TOKEN[:16].upper(), "1234567890-abc", "user:pw"):
        assert secret not in text
    assert "lr = 3" in text


@pytest.mark.parametrize(
    "line",
    [
        "ganeum train one.yaml train.tokens=1e9",
        "tokenizer: gpt2",
        "--max-new-tokens 50",
        "git@github.com:a/b",
        "hf_model",
    ],
)
def test_an_innocent_line_stays(line: str) -> None:
    """Tokens that are counted, a tokenizer and a repository's address are no secrets."""
    assert line == without_secrets(line, ())


@given(
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=20),
    before=st.text(max_size=10),
    after=st.text(max_size=10),
    name=st.sampled_from(["A_KEY", "hf_token", "DbPassword", "X_SECRET", "AWS_SECRET_ACCESS_KEY"]),
)
def test_whatever_the_secret(value: str, before: str, after: str, name: str) -> None:
    """No line that holds a secret's value is left."""
    text = f"one\n{before}{value}{after}\ntwo"
    assert value not in without_secrets(text, secrets({name: value}, {})).replace(
        "[a line was left out here: it may hold a secret]", ""
    )


def test_a_large_diff_is_cut(repository: Path) -> None:
    """A diff has at most 200,000 characters, and says how many are missing."""
    (repository / "train.py").write_text("x = 1\n" * 60_000)
    code = environment(1, repository)["git_of_working_directory"]
    assert isinstance(code, dict)
    assert len(code["diff"]) < DIFF_LIMIT + 100
    assert code["diff"].endswith("more characters]")
