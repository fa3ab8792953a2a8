"""`ganeum generate`: rows in, rows with texts out, in their order, whatever stops it and wherever it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.errors import DataError, RunError
from ganeum.hardware.machine import cpu
from ganeum.inference import output, theirs
from ganeum.inference.decoding import Decoding
from ganeum.inference.opening import open_writer
from ganeum.inference.output import Output, encoded
from ganeum.inference.sizes import MOST, Sizes
from ganeum.plan.memory import Memory

TEXTS = ["the quick brown fox", "a", "jumps over", "", "the lazy dog.", "abc abc", "x", "y z"] * 5


def rows_file(directory: Path, texts=TEXTS) -> Path:
    """Rows with a number and a text."""
    path = directory / "in.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def generate(model: Path, source: Path | str, out: Path | str, *options: str) -> None:
    """The command, as a user calls it; an error the user can act on is raised as the text that is printed."""
    with pytest.raises(SystemExit) as end:
        main(["generate", str(model), "--input", str(source), "--output", str(out), "--max-new-tokens", "6", *options])
    assert end.value.code == 0


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["generate", *map(str, arguments)])
    assert end.value.code == 2
    return capsys.readouterr().err


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_every_row_has_its_text_in_its_place(directories, tmp_path, family):
    """Rows keep their columns and their order, and each text is the one that the row has when it is written alone."""
    source, out = rows_file(tmp_path), tmp_path / "out.jsonl"
    generate(directories[family], source, out, "--batch-size", "3")
    decoding = Decoding(max_new_tokens=6)
    model = open_writer(str(directories[family]), cpu(), decoding)
    expected = [model.decode(model.write(model.encode([text]), None, decoding)[0]) for text in TEXTS[:8]]
    assert [{"id": i, "text": text, "generated": expected[i % 8]} for i, text in enumerate(TEXTS)] == lines(out)


def test_drawn_texts_are_the_same_in_any_batches(directories, tmp_path):
    """With a temperature, one row at a time and seven at a time write the same file; another seed another."""
    source = rows_file(tmp_path)
    for name, *options in (("one", "--batch-size=1"), ("seven", "--batch-size=7"), ("other", "--seed=8")):
        generate(directories["t5"], source, tmp_path / name, "--temperature", "3", *options)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "seven").read_bytes() != (tmp_path / "other").read_bytes()


@pytest.mark.slow
def test_a_killed_start_is_gone_on_with(directories, tmp_path):
    """Killed with SIGKILL after its first lines, with a torn line behind them, the file ends as that of a whole run."""
    source = rows_file(tmp_path, TEXTS * 10)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    how = ["--temperature", "2", "--batch-size", "1"]
    generate(directories["gpt2"], source, whole, *how)
    command = [sys.executable, "-m", "ganeum", "generate", str(directories["gpt2"]), "--input", str(source)]
    process = subprocess.Popen(
        [*command, "--output", str(out), "--max-new-tokens", "6", *how], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    begun = out.read_bytes()
    kept = begun[: begun.rindex(b"\n") + 1]
    assert 0 < len(kept) < whole.stat().st_size
    out.write_bytes(kept + b'{"id": 3')
    generate(directories["gpt2"], source, out, *how)
    assert whole.read_bytes() == out.read_bytes()
    assert out.read_bytes().startswith(kept)


def test_a_finished_output_is_left_as_it_is(directories, tmp_path, capsys):
    """The same command again writes nothing and says so."""
    source, out = rows_file(tmp_path), tmp_path / "out.jsonl"
    generate(directories["t5"], source, out)
    before = out.stat().st_mtime_ns
    capsys.readouterr()
    generate(directories["t5"], source, out)
    assert before == out.stat().st_mtime_ns
    assert (
        f"40 rows of {out} were written before, and stay\nnothing was left to write: {out} has all 40 rows\n"
        == capsys.readouterr().err
    )


def test_texts_that_end_at_once_are_counted(directories, tmp_path, monkeypatch, capsys):
    """A model that ends every text before its first token is not a silent one."""
    monkeypatch.setattr(theirs.Theirs, "write", lambda self, prompts, noise, decoding: [[] for _ in prompts])
    generate(directories["t5"], rows_file(tmp_path), tmp_path / "out.jsonl")
    assert "ended before their first token: 40 texts\n" in capsys.readouterr().err


def test_an_interruption_says_how_it_goes_on(directories, tmp_path, monkeypatch, capsys):
    """Ctrl-C behind the first 16 rows: exit 130, the lines written stay, and the same command is what to type."""
    source, out, write, calls = rows_file(tmp_path), tmp_path / "out.jsonl", theirs.Theirs.write, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 17:  # a window is 16 batches
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(theirs.Theirs, "write", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["generate", str(directories["t5"]), "--input", str(source), "--output", str(out), "--batch-size", "1"])
    assert end.value.code == 130
    assert capsys.readouterr().err.endswith(f"interrupted: what {out} has stays, and the same command goes on\n")
    assert [row["id"] for row in lines(out)] == list(range(16))


def test_other_settings_are_refused_with_the_difference(directories, tmp_path, capsys):
    """An output of greedy texts is not gone on with by draws; with --overwrite it is begun again."""
    source, out = rows_file(tmp_path), tmp_path / "out.jsonl"
    generate(directories["t5"], source, out)
    arguments = (directories["t5"], "--input", source, "--output", out, "--temperature=1", "--max-new-tokens=6")
    assert refused(capsys, *arguments) == (
        f"RunError: {out} was written with other settings: it cannot be gone on with\n"
        f"  where  {out}.settings.json\n"
        "  why    temperature: 0.0 there, 1.0 here\n"
        "  try    another --output, or --overwrite to begin again\n"
    )
    generate(directories["t5"], source, out, "--temperature=1", "--overwrite")
    assert len(lines(out)) == 40


def test_a_file_of_somebody_else_is_not_touched(directories, tmp_path, capsys):
    """A file that no earlier start wrote is in the way."""
    out = tmp_path / "thesis.txt"
    out.write_text("mine")
    assert refused(capsys, directories["t5"], "--input", rows_file(tmp_path), "--output", out) == (
        f"RunError: {out} is there already, and what wrote it is not known\n"
        f"  where  {out}\n"
        "  why    there is no thesis.txt.settings.json beside it\n"
        "  try    another --output, or --overwrite to begin again\n"
    )
    assert out.read_text() == "mine"


def test_an_output_that_promises_another_form_is_refused(directories, tmp_path, capsys):
    """JSON lines in a file called .csv would be read as a table, by ganeum score as well."""
    out = tmp_path / "texts.csv"
    told = refused(capsys, directories["t5"], "--input", rows_file(tmp_path), "--output", out)
    assert told == (
        f"RunError: the output is JSON lines, and {out} would be taken for something else\n"
        "  where  --output\n"
        "  why    a file that ends in .csv is read otherwise, by ganeum, too\n"
        f"  try    --output {tmp_path / 'texts.jsonl'}\n"
    )
    assert not out.exists()


def test_rows_are_not_written_over_themselves(directories, tmp_path, capsys):
    """The input as output is refused, with --overwrite too, and stays as it is."""
    source = rows_file(tmp_path)
    before = source.read_bytes()
    told = refused(capsys, directories["t5"], "--input", source, "--output", source, "--overwrite")
    assert told == (
        f"RunError: the rows would be written over themselves\n  where  {source}\n  try    another --output\n"
    )
    assert before == source.read_bytes()


def test_another_input_is_noticed(directories, tmp_path, capsys):
    """Rows that differ from those that the lines were written for are refused by the line; fewer rows, too."""
    source, out = rows_file(tmp_path), tmp_path / "out.jsonl"
    generate(directories["t5"], source, out)
    again = (directories["t5"], "--input", source, "--output", out, "--max-new-tokens=6")
    rows_file(tmp_path, [*TEXTS[:2], "other", *TEXTS[3:]])
    assert refused(capsys, *again).endswith(
        f"DataError: line 3 of {out} was written for another row\n"
        f"  where  {out}, line 3\n"
        "  why    the input is not the one that the output was begun with\n"
        "  try    another --output, or --overwrite to begin again\n"
    )
    rows_file(tmp_path, TEXTS[:9])
    assert refused(capsys, *again).endswith(
        f"RunError: {out} has 40 rows, but the input only 9\n"
        "  why    the input is not the one that the output was begun with\n"
        "  try    another --output, or --overwrite to begin again\n"
    )


def test_a_pipe_in_and_a_pipe_out(directories):
    """Plain lines from standard input become JSON lines on standard output, and nothing else does."""
    command = [sys.executable, "-m", "ganeum", "generate", str(directories["t5"]), "--input", "-", "--output", "-"]
    done = subprocess.run(
        [*command, "--max-new-tokens", "3", "--json"], input="abc\n\nxyz\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ["abc", "", "xyz"] == [json.loads(line)["text"] for line in done.stdout.splitlines()]
    assert json.loads(done.stderr[done.stderr.index("{") :])["rows"] == 3


def test_memory_that_runs_out_halves_the_batch(directories, tmp_path, monkeypatch, capsys):
    """Where more than two rows at once are refused, the batch is halved until it fits, once, and no text changes."""
    source, plain, out = rows_file(tmp_path), tmp_path / "plain.jsonl", tmp_path / "out.jsonl"
    generate(directories["t5"], source, plain)
    real = theirs.Theirs.write

    def small(self, prompts, noise, decoding):
        if len(prompts) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
        return real(self, prompts, noise, decoding)

    monkeypatch.setattr(theirs.Theirs, "write", small)
    capsys.readouterr()
    generate(directories["t5"], source, out, "--batch-size", "8", "--json")
    told = capsys.readouterr()
    assert plain.read_bytes() == out.read_bytes()
    assert [8, 4] == json.loads(told.out)["out_of_memory"]
    assert told.err.count("Out of memory") == 2


def test_one_row_that_does_not_fit_ends_it(directories, tmp_path, monkeypatch, capsys):
    """Where not even one row fits the error says what would help."""

    def never(self, prompts, noise, decoding):
        raise MemoryError

    monkeypatch.setattr(theirs.Theirs, "write", never)
    out = tmp_path / "out.jsonl"
    told = refused(capsys, directories["t5"], "--input", rows_file(tmp_path, ["abc"]), "--output", out)
    assert told == (
        "RunError: one row of 4 tokens with 128 new ones does not fit into memory\n"
        "  why    no more could be allocated\n"
        "  try    --max-length for shorter prompts, fewer --max-new-tokens or --num-beams, or --precision bf16\n"
    )


def test_as_many_at_once_as_the_plan_lets_fit(directories):
    """The size halves from the most until the plan's upper bound is free; what a user says is taken as it is."""
    decoding = Decoding()
    model = open_writer(str(directories["t5"]), cpu(), decoding)
    asked = []

    def needed(size: int, prompt: int, decoding: Decoding) -> Memory:
        asked.append(size)
        return Memory({"cache": size * prompt * 2.0**30}, "", 0.0, size * prompt * 2.0**30, 0.0, 0.0, 0.0)

    model.needed = needed
    from dataclasses import replace

    sizes = Sizes(model, decoding, replace(cpu(), usable_gib=100.0))
    assert 8 == sizes.of(10)  # 32 and 16 rows of 10 tokens would take 320 and 160 GiB
    assert [32, 16, 8] == asked
    assert MOST["cpu"] == sizes.of(1)
    assert 1 == sizes.of(1000)  # not even one fits by the plan: it is tried
    assert 50 == Sizes(model, decoding, cpu(), 50).of(1000)


def test_a_column_in_the_way_is_refused(tmp_path):
    """A row that has the column already is not overwritten."""
    out = Output(str(tmp_path / "out.jsonl"), "text", {})
    with pytest.raises(DataError) as error:
        out.check({"text": "abc"}, 4)
    assert """\
DataError: row 5 has a column 'text' already
  why    its text would go there
  try    --into text_2, or any other name""" == str(error.value)


@pytest.mark.parametrize("line", ["garbage", "[1]", '{"id": 0}', "\udcff"])
def test_a_damaged_line_is_named(tmp_path, line):
    """A line that no start wrote is told with its number, and what to do about it."""
    path = tmp_path / "out.jsonl"
    for text in (b"", (line + "\n").encode("utf-8", "surrogateescape")):
        out = Output(str(path), "generated", {})
        out.close()
        path.write_bytes(text)
    with pytest.raises(DataError) as error:
        Output(str(path), "generated", {}).has({"id": 0}, 0)
    assert f"""\
DataError: line 1 of {path} is damaged
  where  {path}, line 1
  why    it is no JSON object with a text in 'generated'
  try    take away that line and all behind it: the same command writes them again; or --overwrite""" == str(
        error.value
    )


def test_two_at_once_do_not_write_into_one_file(tmp_path, monkeypatch):
    """While one process has the output, another is refused, with --overwrite too; then it goes on behind its lines."""
    monkeypatch.setattr(output, "LOCK_PATIENCE_S", 0.01)
    path = tmp_path / "out.jsonl"
    first = Output(str(path), "generated", {})
    for overwrite in (False, True):
        with pytest.raises(RunError) as error:
            Output(str(path), "generated", {}, overwrite=overwrite)
        assert f"""\
RunError: {path} is being written by another process
  where  {path}
  why    two at once would write every row twice
  try    wait for it, stop it, or another --output""" == str(error.value)
    first.write([{"id": 0}], ["abc"])
    first.close()
    assert Output(str(path), "generated", {}).has({"id": 0}, 0)


def test_what_cannot_be_written_is_told_of_the_output(directories, tmp_path, capsys):
    """A place where nothing can be made, a directory and no name at all are errors of the output, not of the input."""
    source = rows_file(tmp_path)
    told = refused(capsys, directories["t5"], "--input", source, "--output", source / "out.jsonl")
    assert told == (
        f"RunError: {source}/out.jsonl cannot be written\n"
        f"  where  {source}\n"
        "  why    File exists\n"
        "  try    another --output; or mend that, and the same command goes on\n"
    )
    told = refused(capsys, directories["t5"], "--input", source, "--output", tmp_path, "--overwrite")
    assert told == f"RunError: --output is a directory\n  where  {tmp_path}\n  try    a file's name\n"
    assert "RunError: --output is empty" in refused(capsys, directories["t5"], "--input", source, "--output", "")


def test_a_full_disk_is_told_of_the_output(monkeypatch):
    """What the system says while rows are written is an error of the output."""
    out = Output("-", "generated", {})
    out.name, out._file = "/dev/full", Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    with pytest.raises(RunError) as error:
        out.write([{"id": 0}], ["abc"])
    assert ("/dev/full cannot be written", "No space left on device") == (error.value.what, error.value.why)


def test_a_settings_file_alone_is_in_nobodys_way(tmp_path):
    """A start that died before its first line left only the settings: any other start may begin."""
    Output(str(tmp_path / "out.jsonl"), "generated", {"seed": 1}).close()
    (tmp_path / "out.jsonl").unlink()
    Output(str(tmp_path / "out.jsonl"), "generated", {"seed": 2}).close()
    with pytest.raises(RunError):
        Output(str(tmp_path / "out.jsonl"), "generated", {"seed": 1})


def test_what_json_lacks_is_written_all_the_same():
    """NaN becomes null, a lone half of a surrogate pair its escape, other characters themselves."""
    assert '{"a": null, "b": "한"}'.encode() == encoded({"a": float("nan"), "b": "한"})
    assert rb'{"b": "\ud55c\ud800"}' == encoded({"b": "한\ud800"})
