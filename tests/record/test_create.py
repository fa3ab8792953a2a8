"""A run directory is made once, gone on with, extended, refused or replaced; at no moment can a death spoil it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ganeum.config import Config, load_stored, to_yaml
from ganeum.config.schema import Model, Train
from ganeum.errors import GaneumError, RunError
from ganeum.record import RunDirectory, Status, create, existing, find, is_finished, making, runs
from ganeum.record.files import write_atomic
from ganeum.record.making import Outcome


def config(*, name: str = "exp", n_layer: int = 2, **train: object) -> Config:
    return Config(name=name, model=Model(n_layer=n_layer), train=Train.model_validate({"max_iters": 10} | train))


def start(requested: Config, resolved: Config | None = None, *, overwrite: bool = False) -> tuple[Config, Outcome]:
    run, stored, outcome = create(requested, resolved or requested, overwrite=overwrite)
    run.release()
    return stored, outcome


def finish(name: str = "exp") -> None:
    run = find(name)
    Status.of_this_process("finished", 10).write(run.status_path)


def said(requested: Config) -> str:
    with pytest.raises(RunError) as caught:
        start(requested)
    return str(caught.value)


def test_the_paths_of_a_run() -> None:
    """Every path of the contract, as the design has it."""
    run = RunDirectory(Path("results/exp"))
    assert [
        "results/exp/config.yaml",
        "results/exp/plan.json",
        "results/exp/environment.json",
        "results/exp/tokenizer",
        "results/exp/status.json",
        "results/exp/logs/metrics.jsonl",
        "results/exp/logs/console.log",
        "results/exp/checkpoints/step-00001000",
        "results/exp/samples/step-00001000.txt",
        "results/exp/summary.json",
    ] == [
        path.as_posix()
        for path in (
            run.config_path,
            run.plan_path,
            run.environment_path,
            run.tokenizer_dir,
            run.status_path,
            run.metrics_path,
            run.console_path,
            run.checkpoint_dir(1000),
            run.sample_path(1000),
            run.summary_path,
        )
    ]


def test_a_new_run_holds_its_resolved_config(results: Path) -> None:
    """The first start makes results/NAME with config.yaml, every key in it."""
    assert (config(compile=False), "new") == start(config(compile="auto"), config(compile=False))
    assert config(compile=False) == load_stored(results / "exp/config.yaml") == existing("exp")
    assert existing("other") is None


def test_the_same_run_goes_on_with_what_was_decided() -> None:
    """`auto` agrees with whatever it became at the first start, and stays that."""
    start(config(compile="auto"), config(compile=False))
    assert (config(compile=False), "resume") == start(config(compile="auto"), config(compile=True))
    assert (config(compile=False), "resume") == start(config(compile=False))


def test_null_is_the_size_that_it_stands_for() -> None:
    """A GPT stored with no dropout as 0.0, or with its MLP's width, goes on where both are left unsaid."""
    written = Config(name="exp", model=Model(n_layer=2, dropout=0.0, intermediate_size=1536), train=Train(max_iters=10))
    start(written)
    assert (written, "resume") == start(config())
    finish()
    assert is_finished(config())
    dropped = Config(name="exp", model=Model(n_layer=2, dropout=0.1), train=Train(max_iters=10))
    assert "model.dropout is 0 there and 0.1 here" in said(dropped)


def test_null_is_no_number_of_somebody_elses_model() -> None:
    """Without a word on dropout a T5 has its own, which is not none."""
    of_theirs = {dropout: Config(name="exp", model=Model(source="t5", dropout=dropout)) for dropout in (None, 0.0)}
    start(of_theirs[0.0])
    assert "model.dropout is 0 there and null here" in said(of_theirs[None])


def test_a_finished_run_is_finished_until_it_is_extended() -> None:
    """With the same length there is nothing to do; with a larger one it goes on, and the larger one is kept."""
    start(config())
    finish()
    assert (config(), "finished") == start(config())
    assert is_finished(config())
    assert not is_finished(config(max_iters=20))
    assert (config(max_iters=20), "resume") == start(config(max_iters=20))
    assert config(max_iters=20) == existing("exp")


def test_epochs_are_raised_with_the_steps_they_come_to() -> None:
    """3 epochs over 2 take the new number of steps from the resolved config; 2 again keep the old one."""
    start(config(max_iters=None, epochs=2), config(max_iters=508, epochs=2))
    assert config(max_iters=508, epochs=2) == start(config(max_iters=None, epochs=2), config(max_iters=1, epochs=2))[0]
    assert (
        config(max_iters=762, epochs=3) == start(config(max_iters=None, epochs=3), config(max_iters=762, epochs=3))[0]
    )


def test_steps_instead_of_epochs_are_compared_by_the_steps_they_came_to() -> None:
    """tokens over stored epochs: more steps extend the run, fewer are refused."""
    start(config(max_iters=None, epochs=2), config(max_iters=508, epochs=2))
    more = config(max_iters=600, tokens=1e6)
    assert more == start(config(max_iters=None, tokens=1e6), more)[0]
    assert "train.max_iters is 600 there and 508 here" in said(config(max_iters=508))


def test_a_difference_is_refused_with_a_free_name(results: Path) -> None:
    """Another value anywhere is another run: nothing is touched, every difference is told."""
    start(config())
    start(config(name="exp-2"))
    before = (results / "exp/config.yaml").read_bytes()
    assert said(config(n_layer=3, max_iters=5, compile=True, init_from="a")) == (
        "RunError: the run exp exists with another config\n"
        f"  where  {results}/exp/config.yaml\n"
        "  why    train.max_iters is 10 there and 5 here; it can be raised, not lowered\n"
        "         model.n_layer is 2 there and 3 here\n"
        "         train.compile is 'auto' there and true here\n"
        "         train.init_from is null there and 'a' here\n"
        "  try    name=exp-3 for a new run, or --overwrite to replace this one"
    )
    assert before == (results / "exp/config.yaml").read_bytes()


def test_a_share_of_the_steps_is_compared_by_the_steps_it_comes_to() -> None:
    """0.2 of 10 steps is 2 steps: also when the run is extended, and refused is what comes to others."""
    began = config(warmup_iters=2, eval_interval=5)
    create(config(warmup_iters=0.2, eval_interval=0.5), began, files={"plan.json": {"data": {"steps": 10}}})[
        0
    ].release()
    assert began == start(config(warmup_iters=0.2, eval_interval=0.5))[0]
    longer = config(warmup_iters=2, eval_interval=5, max_iters=40)
    assert longer == start(config(warmup_iters=0.2, eval_interval=0.125, max_iters=40), longer)[0]
    assert longer == start(config(warmup_iters=0.2, eval_interval=0.5, max_iters=40), longer)[0]
    finish()
    assert is_finished(config(warmup_iters=0.2, max_iters=40))
    assert not is_finished(config(warmup_iters=0.4, max_iters=40))
    assert "why    train.warmup_iters is 2 there and 0.4 here\n  try" in said(config(warmup_iters=0.4, max_iters=40))
    (find("exp").plan_path).unlink()  # then only the length that it has now is known
    assert longer == start(config(warmup_iters=0.05, max_iters=40), longer)[0]


def test_what_changes_no_bit_may_change_on_the_way() -> None:
    """What is recomputed and how much is kept are taken over; recomputing in compiled code rounds anew, and is not."""
    start(config(compile=False))
    assert start(config(compile=False, activation_checkpointing="whole", keep_last=5)) == (
        config(compile=False, activation_checkpointing="whole", keep_last=5),
        "resume",
    )
    start(config(name="exp", compile=True, activation_checkpointing="none"), overwrite=True)
    assert "train.activation_checkpointing is 'none' there and 'whole' here" in said(
        config(compile=True, activation_checkpointing="whole")
    )


def test_text_that_happens_to_say_auto_is_no_auto() -> None:
    """Only a key whose default is `auto` agrees with everything: a prompt does not."""
    one, two = (config().model_copy(update={"sample": config().sample.model_copy(update={"prompt": p})}) for p in "ab")
    auto = one.model_copy(update={"sample": one.sample.model_copy(update={"prompt": "auto"})})
    start(two)
    assert "sample.prompt is 'b' there and 'auto' here" in said(auto)


def test_evaluation_only_is_no_difference() -> None:
    """A finished run may be evaluated, and trained on afterwards, under one config."""
    start(config())
    finish()
    assert (config(eval_only=True), "resume") == start(config(eval_only=True))
    assert (config(), "finished") == start(config())


def test_overwriting_replaces_a_run(results: Path) -> None:
    """--overwrite leaves nothing of what was there, and nothing beside it."""
    start(config())
    (results / "exp/checkpoints").mkdir()
    (results / "exp/checkpoints/file").touch()
    assert (config(n_layer=3), "new") == start(config(n_layer=3), overwrite=True)
    assert ["config.yaml"] == [path.name for path in (results / "exp").iterdir()]
    assert {"exp", ".locks"} == {path.name for path in results.iterdir()}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_touched(results: Path, overwrite: bool) -> None:
    """A directory of the user's own, or a file, in the run's place is told, and stays."""
    (results / "exp").mkdir(parents=True)
    (results / "exp/notes.txt").write_text("mine")
    (results / "file").write_text("mine")
    texts = []
    for name in ("exp", "file"):
        with pytest.raises(RunError) as caught:
            start(config(name=name), overwrite=overwrite)
        texts.append(str(caught.value))
    assert texts == [
        "RunError: the run exp cannot be made: a directory with notes.txt and no config.yaml is in its place\n"
        f"  where  {results}/exp\n  try    move it away, or name=exp-2",
        "RunError: the run file cannot be made: a file is in its place\n"
        f"  where  {results}/file\n  try    move it away, or name=file-2",
    ]
    assert "mine" == (results / "exp/notes.txt").read_text() == (results / "file").read_text()


def test_results_that_cannot_be_written_are_an_error_of_ours(results: Path) -> None:
    """A file where the directory of all runs should be is told without a traceback."""
    results.write_text("")
    with pytest.raises(RunError, match="the run directory cannot be made"):
        start(config())


def test_two_processes_never_train_one_run(results: Path) -> None:
    """While one process holds a run, another is refused by name; when the first is killed, the run is free."""
    hold = (
        "import sys, time; from ganeum.config import Config; from ganeum.config.schema import Train\n"
        "from ganeum.record import create, Status\n"
        "c = Config(name='exp', train=Train(max_iters=10)); run, _, _ = create(c, c)\n"
        "Status.of_this_process('running').write(run.status_path); print('held', flush=True); time.sleep(60)"
    )
    mine = Config(name="exp", train=Train(max_iters=10))
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert b"held\n" == holder.stdout.readline()
        assert said(mine) == (
            f"RunError: the run exp is being trained by process {holder.pid}\n"
            f"  where  {results}/exp\n"
            "  why    two processes in one run would overwrite each other's checkpoints\n"
            "  try    wait for it, stop it, or start this one under another name: name=exp-2"
        )
        holder.kill()
    assert (mine, "resume") == start(mine)


def test_a_run_is_found_by_name_or_path(results: Path) -> None:
    """A name under results, or any path to a run; a misspelt name is answered with the nearest."""
    start(config())
    start(config(name="other"))
    (results / "no_run").mkdir()
    assert results / "exp" == find("exp").path == find(results / "exp").path
    assert ["exp", "other"] == [run.name for run in runs()]
    with pytest.raises(RunError) as caught:
        find("epx")
    assert str(caught.value) == f"RunError: there is no run epx\n  where  {results}\n  try    exp"


CRASH = """
import os, signal, sys
from ganeum.config import Config
from ganeum.config.schema import Model, Train
from ganeum.record import create

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}
left = int(sys.argv[1])

def dying(event, arguments):
    global left
    if event in EVENTS and (event != "open" or "results" in str(arguments[0])):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

config = Config(name="exp", model=Model(n_layer=int(sys.argv[2])), train=Train(max_iters=10))
sys.addaudithook(dying)
create(config, config, overwrite=sys.argv[3] == "overwrite")
"""


def crashes(n_layer: int, how: str) -> int:
    """Start again and again, each time killed one file operation later, until one comes through → how often."""
    for survived in range(100):
        done = subprocess.run([sys.executable, "-c", CRASH, str(survived), str(n_layer), how], check=False)
        if done.returncode == 0:
            return survived
        assert -signal.SIGKILL == done.returncode
        check_state(n_layer, how)
    raise AssertionError("it never comes through")


def check_state(n_layer: int, how: str) -> None:
    """What must hold after each death: there is no run, or the whole old one, or the new one."""
    stored = existing("exp")
    if stored is not None and stored.model.n_layer != n_layer:
        assert ("overwrite", 2) == (how, stored.model.n_layer)
        assert (find("exp").checkpoints_dir / "file").exists()


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_death_while_a_run_is_made_leaves_nothing_in_the_way(results: Path) -> None:
    """Killed before each of its file operations in turn, making a run can always be done again."""
    assert crashes(2, "new") >= 5
    assert (config(), "resume") == start(config())
    assert ["config.yaml"] == [path.name for path in (results / "exp").iterdir()]


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_death_while_a_run_is_replaced_leaves_the_old_or_the_new(results: Path) -> None:
    """Killed before each file operation of an --overwrite in turn: the run is the old one, none, or the new one, and
    the next start comes through."""
    start(config(n_layer=2))
    (results / "exp/checkpoints").mkdir()
    (results / "exp/checkpoints/file").touch()
    assert crashes(3, "overwrite") >= 10
    assert ["config.yaml"] == [path.name for path in (results / "exp").iterdir()]


def test_a_death_while_a_run_is_lengthened_leaves_none_that_calls_itself_finished(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after the new length is on the disk: the next start goes on."""
    start(config())
    finish()

    def dies(path: Path, content: str) -> None:
        write_atomic(path, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(making, "write_atomic", dies)
        with pytest.raises(KeyboardInterrupt):
            start(config(max_iters=20))
    assert 20 == load_stored(results / "exp/config.yaml").train.max_iters
    assert not is_finished(config(max_iters=20))
    assert (config(max_iters=20), "resume") == start(config(max_iters=20))


def test_a_damaged_stored_config_is_told_with_its_line(results: Path) -> None:
    """A config.yaml edited into nonsense is told with file and line, and is no reason to overwrite."""
    start(config())
    (results / "exp/config.yaml").write_text(to_yaml(config()).replace("n_layer: 2", "n_layer: two"))
    with pytest.raises(GaneumError) as caught:
        start(config())
    assert "model.n_layer must be a whole number of at least 1, but it is the text 'two'" in str(caught.value)
    assert not is_finished(config())
