"""Traces in a child process: what comes back, and what is said where nothing does."""

from __future__ import annotations

import os
import random
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ganeum.config import Config
from ganeum.config.schema import Model, Train
from ganeum.errors import ConfigError, TraceError
from ganeum.hardware import peaks
from ganeum.hardware.card import card
from ganeum.plan import execution
from ganeum.plan.trace import child, script
from ganeum.plan.trace.child import Child, NotTraced, OutOfTime
from ganeum.plan.trace.replay import replay

A100 = card("A100 SXM4 40GB")
TINY = Config(
    name="tiny",
    model=Model(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=64),
    train=Train(batch_size=4, micro_batch_size=4, precision="bf16"),
)
WAY = execution.of(TINY, A100, 4)


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A program in the place of Python, to be filled: what a child might do."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_two_steps_of_a_run_are_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPT's step on a card that is not here; asked a second time, the answer is there already. A file in the current
    directory that is called like a module of Python's is not taken for it. What goes wrong is said in a line, and the
    next request is answered, a script's too that reads and prints: it finds the end of its input, and what to try is
    told with the reason."""
    (tmp_path / "types.py").write_text("raise SystemExit('mine')\n")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(
        "import sys, torch\nprint('{}')\ndef asks():\n    return (lambda: None), (lambda built: input())\n"
        "def takes():\n    assert sys.stdin.read() == ''\n"
        "    return (lambda: None), (lambda built: torch.ones(512, device='cuda') + 1)\n"
    )
    with Child() as process:
        with pytest.raises(NotTraced, match=r"^ValidationError: .* validation error"):
            process.run(TINY, A100, replace(WAY, precision="fp7"))  # type: ignore[arg-type]
        answer = process.run(TINY, A100, WAY)
        assert process.run(TINY, A100, WAY) is answer
        with pytest.raises(NotTraced, match="EOFError"):
            process.script(file, "asks", A100)
        assert replay(process.script(file, "takes", A100).trace).peak_allocated == 4_096
        with pytest.raises(NotTraced, match="there is no function train in it") as error:
            process.script(file, "train", A100)
    assert error.value.suggestion == f"{file}:asks or {file}:takes"
    assert ("cuda", 2) == (answer.trace.device, len(answer.trace.steps))
    assert {"forward", "backward", "update"} <= {m.phase for m in replay(answer.trace).curve}


def test_a_killed_child_is_a_reason(stub: Path) -> None:
    """The signal has a name, and the process's last words are told."""
    stub.write_text("#!/bin/sh\nread line\necho no device guard >&2\nkill -ABRT $$\n")
    with Child(python=str(stub)) as process, pytest.raises(NotTraced) as error:
        process.run(TINY, A100, WAY)
    assert str(error.value) == "the tracing process was ended by SIGABRT (no device guard)"


def test_a_child_that_ends_is_a_reason(stub: Path) -> None:
    """Its exit status is told; a later request starts another."""
    stub.write_text("#!/bin/sh\nexit 3\n")
    with Child(python=str(stub)) as process:
        for _ in range(2):
            with pytest.raises(NotTraced, match=r"^the tracing process ended with status 3$"):
                process.run(TINY, A100, WAY)


def test_a_child_has_a_time_limit(stub: Path) -> None:
    """It is ended then, and the limit is told."""
    stub.write_text("#!/bin/sh\nread line\nexec sleep 60\n")
    with Child(limit_s=1.0, python=str(stub)) as process, pytest.raises(NotTraced, match=r"^it took longer than 1 s$"):
        process.run(TINY, A100, WAY)


def test_the_limit_is_that_of_all_answers(stub: Path) -> None:
    """What takes more than its share of it makes room for something simpler; after it nothing is asked any more."""
    stub.write_text("#!/bin/sh\nread line\nexec sleep 60\n")
    with Child(limit_s=2.0, python=str(stub)) as process:
        with pytest.raises(NotTraced, match=r"^it took longer than 1 s$") as error:
            process.run(TINY, A100, WAY, share=0.5)
        assert not isinstance(error.value, OutOfTime)
        with pytest.raises(OutOfTime, match=r"^it took longer than 2 s$"):
            process.run(TINY, A100, WAY)
        stub.unlink()
        with pytest.raises(OutOfTime, match=r"^it took longer than 2 s$"):
            process.run(TINY, A100, WAY)


def test_without_torch_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pip line is told, and no process is started."""
    monkeypatch.setattr(peaks, "torch_version", lambda: "")
    with Child(python="/nowhere") as process, pytest.raises(NotTraced) as error:
        process.run(TINY, A100, WAY)
    assert str(error.value) == "torch is not installed, and the step is torch's: pip install torch"


def test_an_unknown_torch_is_tried_out_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What its small step came to is remembered; one that did not come back is not tried again."""
    from ganeum.plan.trace import fake_cuda

    tried: list[int] = []
    monkeypatch.setattr(child, "KNOWN", ())
    monkeypatch.setattr(peaks, "cache_directory", lambda: tmp_path / "new")
    monkeypatch.setattr(fake_cuda, "self_test", lambda: tried.append(1))
    monkeypatch.setattr(peaks, "torch_version", lambda: "9.9.0")
    assert ["", ""] == [child._tested(), child._tested()]

    def fails() -> None:
        tried.append(2)
        raise RuntimeError("no guard\nand more")

    monkeypatch.setattr(fake_cuda, "self_test", fails)
    monkeypatch.setattr(peaks, "torch_version", lambda: "9.9.1")
    said = "torch 9.9.1 does not trace as expected: no guard"
    assert [said, said] == [child._tested(), child._tested()]

    def ends() -> None:
        raise SystemExit

    monkeypatch.setattr(fake_cuda, "self_test", ends)
    monkeypatch.setattr(peaks, "torch_version", lambda: "9.9.2")
    with pytest.raises(SystemExit):
        child._tested()
    assert child._tested() == "torch 9.9.2 ended the process that tried it out"
    assert tried == [1, 2]


def test_a_script_is_found(tmp_path: Path) -> None:
    """A file and one of its functions, or what is wrong with them."""
    file = tmp_path / "mine.py"
    file.write_text("def training():\n    return (lambda: 1), (lambda built: None)\n\ndef other():\n    return 3\n")
    path, function = script.split(f"{file}:training")
    build, _ = script.load(path, function)
    assert build() == 1
    build, _ = script.load(file.rename(tmp_path / "random"), function)  # no ending, and a name that is Python's
    assert (build(), callable(random.random)) == (1, True)
    (tmp_path / "random").rename(file)
    for text, said in (
        (str(file), "--script names no function: "),
        (f"{tmp_path / 'absent.py'}:training", "there is no file "),
    ):
        with pytest.raises(ConfigError, match=said):
            script.split(text)
    with pytest.raises(ConfigError, match="there is no function train in it") as error:
        script.load(file, "train")
    assert error.value.suggestion == f"{file}:training or {file}:other"
    with pytest.raises(ConfigError, match=r"other\(\) gives int, where a pair of functions is expected"):
        script.load(file, "other")[0]()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "it cannot be imported: SyntaxError: "),
        ("\nimport absent_module\n", "it cannot be imported: ModuleNotFoundError: No module named 'absent_module'"),
        ("def f():\n    raise ValueError('no data')\n", "f() failed: ValueError: no data"),
        (
            "def f(size):\n    return size\n",
            "f() failed: TypeError: f() missing 1 required",
        ),
    ],
)
def test_what_is_wrong_with_a_script_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """The file, and its line where it is one's."""
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(TraceError) as error:
        script.load(file, "f")[0]()
    assert error.value.what.startswith(said)
    assert str(file) in str(error.value.where)
    assert ", line" in str(error.value.where) or "missing" in said


def test_the_child_goes_with_its_parent() -> None:
    """Killed in the middle of a trace, nobody is left who would end it: minutes of work end within seconds."""
    import subprocess

    child_code = (
        "import time, ganeum.plan.trace.child as child; child._tested = lambda: '';"
        "child.DO = {'run': lambda _: (print('at work', flush=True), time.sleep(300))}; child.main()"
    )
    parent_code = (
        "import os, subprocess, sys; PIPE = subprocess.PIPE;"
        f"it = subprocess.Popen([sys.executable, '-c', {child_code!r}], stdin=PIPE, stderr=PIPE, text=True);"
        'it.stdin.write(\'{"do": "run"}\\n\'); it.stdin.flush();'
        "print(it.stderr.readline(), end='', flush=True); os.kill(os.getpid(), 9)"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(  # waits for the end of the pipes, which both hold
        [sys.executable, "-c", parent_code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=200
    )
    assert (done.returncode, done.stdout) == (-9, b"at work\n")


def test_the_asking_side_loads_no_torch() -> None:
    """A plan with a trace is made by a process that never imports torch."""
    import subprocess

    code = "import sys, ganeum.plan.trace.exact; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ.copy(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
