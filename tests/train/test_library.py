"""ganeum as a library: what docs/library.md shows runs, importing it costs nothing, and it works beside notebooks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import go, metrics

from ganeum import Callback, load_config, load_run, plan, train
from ganeum.errors import CheckpointError, ConfigError, DeviceError, RunError

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


class Quiet(Callback):
    """Hears nothing."""

    def __repr__(self) -> str:
        return "quiet"


def test_the_pages_examples_run(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python block of docs/library.md, in its order: a plan, a training, its figures, its text."""
    names: dict[str, object] = {}
    for block in re.findall("```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    shown = capsys.readouterr().out.splitlines()
    # 257 tokens x 32, 32 positions x 32, two blocks of 12 x 32^2 + 2 norms x 32, the last norm
    assert str(257 * 32 + 32 * 32 + 2 * (12 * 32**2 + 2 * 32) + 32) == shown[0]
    assert load_run("tiny").summary["steps"] == 30  # type: ignore[index]
    assert any(line.startswith("the cat") for line in shown)
    assert names["losses"] == [line["loss"] for line in metrics("tiny")]
    assert load_run("small").config.model.n_layer == 1


def test_importing_it_loads_nothing_heavy() -> None:
    """Neither torch nor pydantic, until something is asked for; a plan needs no torch either."""
    code = (
        "import sys, ganeum\n"
        "assert not {'torch', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "from ganeum import train, plan, load_run\n"
        "plan({'train': {'max_iters': 10}}, gpu='RTX 4090')\n"
        "assert 'torch' not in sys.modules\n"
        "import ganeum.train.run, ganeum.plan.closed_form\n"
        "assert callable(ganeum.train) and callable(ganeum.plan)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_its_types_are_shipped() -> None:
    """py.typed lies in the package, and `train` is a function for a type checker."""
    import ganeum

    assert (Path(ganeum.__file__).parent / "py.typed").exists()


def test_everything_that_a_run_left(yaml: Path) -> None:
    """Config, plan, metrics, samples, model, tokenizer and text of a finished run."""
    summary, _ = go(yaml)
    run = load_run("tiny")
    assert (run.name, run.state, run.path) == ("tiny", "finished", Path("results/tiny").absolute())
    assert run.summary == json.loads(json.dumps(summary))
    assert run.config.train.eval_batch_size != "auto"
    assert run.plan is not None
    assert run.plan["data"]["steps"] == 20
    assert list(run.metrics) == metrics("tiny")
    assert [line.get("val_loss") for line in metrics("tiny")] == run.metrics.column("val_loss")
    assert [10, 20] == list(run.samples)
    assert run.system == []
    model, tokenizer = run.model("latest", device="cpu"), run.tokenizer()
    assert not model.training
    assert tokenizer.decode(tokenizer.encode("a dog")) == "a dog"
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode("a dog")]))
    assert logits.shape == (1, 5, 257)
    texts = run.generate("a dog", num_samples=2, max_new_tokens=8)
    assert texts == run.generate("a dog", num_samples=2, max_new_tokens=8)
    assert all(text.startswith("a dog") for text in texts)
    assert texts != run.generate("a dog", num_samples=2, max_new_tokens=8, seed=1)


def test_a_config_comes_as_a_file_a_dictionary_or_itself(yaml: Path, data: Path) -> None:
    """All three are the same run; overrides work on each."""
    loaded = load_config(yaml, ["max_iters=8", "sample.interval=0"])
    as_dictionary = {
        "base": Path("tiny.yaml"),
        "train": {"max_iters": 8},
        "sample": {"interval": 0},
        "name": "other",
    }
    first = train(loaded, stream=StringIO())
    second = train(as_dictionary, stream=StringIO())
    third = train(load_run("tiny").config, "name=third", stream=StringIO())
    assert first.run.metrics.column("loss") == second.run.metrics.column("loss") == third.run.metrics.column("loss")
    assert (8, 8) == (first.summary["steps"], third.summary["steps"])


def test_a_dictionary_is_checked_like_a_file(yaml: Path) -> None:
    """Its errors name the keys, all at once, and no file that the user never wrote."""
    with pytest.raises(ConfigError) as error:
        train({"name": "x", "base": "tiny.yaml", "train": {"batch_sise": 8}})
    assert str(error.value) == (
        "ConfigError: there is no key train.batch_sise\n"
        "  where  the config given as a dictionary\n"
        "  try    train.batch_size"
    )
    with pytest.raises(ConfigError) as error:
        train({"base": "tiny.yaml"})
    assert str(error.value) == (
        "ConfigError: a run needs a name, and no file is there to give it one\n"
        "  where  the config given as a dictionary\n"
        '  try    "name": "my_run"'
    )
    with pytest.raises(ConfigError, match="a config holds numbers, text, true, false and null, but this is"):
        plan({"seed": object()})


def test_hugging_faces_names_are_said_and_a_section_is_chosen(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on the command line: what they came to stands first, and the run is called after file and section."""
    sections = {"base": "tiny.yaml", "small": {"training": {"save_total_limit": 1, "dataloader_num_workers": 4}}}
    notice = (
        "Hugging Face's names in this config mean:\n"
        "  save_total_limit: 1 → train.keep_last: 1 (the best one is kept besides)\n"
        "  dataloader_num_workers: 4 (no workers are needed: a batch is read from memory-mapped files)\n\n"
    )
    Path("several.yaml").write_text(json.dumps(sections))
    told = StringIO()
    done = train("several.yaml", "max_iters=4", section="small", stream=told)
    assert told.getvalue().startswith(notice)
    assert (done.run.name, done.run.config.train.keep_last) == ("several-small", 1)
    within = {"small": {"base": "tiny.yaml", "max_steps": 6}}
    assert plan(within, section="small")["data"]["steps"] == 6
    assert "  max_steps: 6 → train.max_iters: 6\n" in capsys.readouterr().err
    for wrong, text in (
        (
            {"section": "smal"},
            'there is no section smal\n  where  {}\n  why    its sections are small\n  try    section="small"',
        ),
        ({}, 'small is a section of this file, and none is chosen\n  where  {}\n  try    section="small"'),
    ):
        for given, where in (("several.yaml", "several.yaml"), (sections, "the config given as a dictionary")):
            with pytest.raises(ConfigError) as error:
                train(given, **wrong)  # type: ignore[arg-type]
            text_here = text.format(where if given is sections or wrong else f"{where}, line 1")
            assert str(error.value) == "ConfigError: " + text_here
    with pytest.raises(ConfigError, match="a run needs a name"):
        train(sections, section="small")


def test_a_card_that_is_none_or_several() -> None:
    """The names that could be meant are suggested."""
    with pytest.raises(DeviceError) as error:
        plan({"train": {"max_iters": 10}}, gpu="RTX 3080")
    assert str(error.value) == (
        "DeviceError: RTX 3080 could be more than one card\n"
        "  where  gpu\n"
        "  try    GeForce RTX 3080 10GB or GeForce RTX 3080 12GB"
    )
    with pytest.raises(DeviceError, match="no GPU called RTX 4099 is known"):
        plan({"train": {"max_iters": 10}}, gpu="RTX 4099")
    assert plan({"train": {"max_iters": 10}}, gpu="V100 PCIe 32GB")["device"]["memory_gib"] == 32


def test_a_run_that_is_not_there_or_has_no_tokenizer(yaml: Path) -> None:
    """Said in full."""
    with pytest.raises(RunError, match="there is no run tinny"):
        load_run("tinny")
    go(yaml, "max_iters=4", "sample.interval=0")
    run = load_run("tiny")
    (run.path / "tokenizer").rename(run.path / "away")
    with pytest.raises(CheckpointError) as error:
        run.tokenizer()
    assert str(error.value) == (
        "CheckpointError: the run tiny has no tokenizer, so nothing can be read or written with it\n"
        f"  where  {run.path / 'tokenizer'}\n"
        "  why    its data came as tokens, without one"
    )


def test_it_trains_in_another_thread(yaml: Path) -> None:
    """Where Python hears no signals none are asked for, and what is shown goes to the stream that was given."""
    stream, results = StringIO(), []
    thread = threading.Thread(target=lambda: results.append(train(yaml, "max_iters=4", stream=stream)))
    thread.start()
    thread.join()
    assert results[0].summary["steps"] == 4
    assert "Training Finished!" in stream.getvalue()


@pytest.mark.parametrize(
    ("callbacks", "given", "instead"),
    [
        ([Quiet], "<class 'test_library.Quiet'>", "Quiet()"),
        (Quiet(), "quiet", "Quiet()"),
        ([print], "<built-in function print>", "MyCallback()"),
    ],
)
def test_what_is_no_callback_is_refused_before_there_is_a_run(
    yaml: Path, callbacks: Any, given: str, instead: str
) -> None:
    """A class for its object, one without its list, a function."""
    with pytest.raises(ConfigError) as error:
        train(yaml, callbacks=callbacks)
    assert str(error.value) == (
        f"ConfigError: callbacks is a list of objects of classes made from ganeum.Callback, but here is {given}\n"
        "  where  callbacks\n"
        f"  try    callbacks=[{instead}]"
    )
    assert not Path("results").exists()


def test_settings_of_a_text_are_checked_like_a_configs(yaml: Path) -> None:
    """Each was taken without a word, or ended in torch."""
    go(yaml, "max_iters=4")
    run = load_run("tiny")
    for settings, what in (
        ({"top_p": 5}, "sample.top_p must be a number above 0 and of at most 1, or null, but it is 5"),
        ({"temperature": -1}, "sample.temperature must be a number of at least 0, but it is -1"),
        ({"max_new_tokens": -5}, "sample.max_new_tokens must be a whole number of at least 1, but it is -5"),
        ({"num_samples": 0}, "sample.num_samples must be a whole number of at least 1, but it is 0"),
        ({"max_tokens": 5}, "there is no key sample.max_tokens"),
    ):
        with pytest.raises(ConfigError) as error:
            run.generate("the", **settings)
        assert error.value.what == what
