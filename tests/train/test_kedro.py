"""examples/kedro: its two pipelines run as they stand, on pairs and a model that are small enough for a test."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config

EXAMPLE = Path(__file__).parents[2] / "examples" / "kedro"
pytestmark = pytest.mark.skipif(find_spec("kedro") is None, reason="pip install kedro")


@pytest.fixture
def project(tmp_path) -> Path:
    """The example with pairs and a T5 of its own, set in conf/local as its README says."""
    place = tmp_path / "project"
    shutil.copytree(EXAMPLE, place, ignore=shutil.ignore_patterns("results", "data", "local"))
    raw = place / "data" / "01_raw"
    raw.mkdir(parents=True)
    rows = [{"text": f"number {i} is here", "summary": f"n {i}"} for i in range(60)]
    (raw / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *"0123456789 n"])}, "<unk>")
    )
    words.pre_tokenizer, words.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    model = place / "model"
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(model)
    shape = {"vocab_size": 15, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5Config(**shape, decoder_start_token_id=0).save_pretrained(model)
    local = place / "conf" / "local" / "parameters" / "training.yml"
    local.parent.mkdir(parents=True)
    changed = {
        "model_name_or_path": "model",
        "model": {"fresh": True},
        "max_steps": 3,
        "num_train_epochs": None,
        "data": {"val_share": 0.2},
        "per_device_train_batch_size": 4,
    }
    local.write_text(yaml.safe_dump({"training": changed}))
    return place


def kedro(project: Path, pipeline: str, cache: Path) -> str:
    """What `kedro run --pipeline=…` printed."""
    environment = {**os.environ, "GANEUM_CACHE": str(cache), "KEDRO_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    environment.pop("GANEUM_RESULTS", None)
    command = [sys.executable, "-m", "kedro", "run", f"--pipeline={pipeline}"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_pipelines_run(project, tmp_path):
    """`split` makes the tokens once, `train` finds them and trains 3 steps, and its second start has nothing to do."""
    cache = tmp_path / "cache"
    kedro(project, "split", cache)
    kept = {path: path.stat().st_mtime_ns for path in (cache / "examples").rglob("*.bin")}
    assert kept
    kedro(project, "train", cache)
    assert kept == {path: path.stat().st_mtime_ns for path in (cache / "examples").rglob("*.bin")}
    summary = json.loads((project / "results" / "summaries" / "summary.json").read_text())
    assert summary["steps"] == 3
    kedro(project, "train", cache)
    assert summary == json.loads((project / "results" / "summaries" / "summary.json").read_text())
    stored = yaml.safe_load((project / "results" / "summaries" / "config.yaml").read_text())
    assert (320, "fixed", 42) == (stored["data"]["max_length"], stored["data"]["batching"], stored["seed"])
