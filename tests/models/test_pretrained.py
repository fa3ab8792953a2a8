"""What cannot be adopted is refused in words that say what to do, and nothing that came with a model is run."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import PAIRS, TEXTS
from transformers import AutoModelForSeq2SeqLM, BertConfig

from ganeum.config.trust import trusting
from ganeum.data.examples.model import learner
from ganeum.errors import CheckpointError, ConfigError
from ganeum.models.pretrained import adopt
from ganeum.models.weights import load_file_state


def written(directory: Path, config: Any) -> Path:
    config.save_pretrained(directory)
    return directory


def refusal(source: str | Path, kind: type[Exception] = CheckpointError, **options: Any) -> str:
    with pytest.raises(kind) as error:
        adopt(source, **options)
    return str(error.value)


def test_weights_and_dropout_are_those_of_the_directory(tmp_path: Path) -> None:
    """What transformers saved is read, in fp32; dropout is the config's, or every share of it the one that is given."""
    model = AutoModelForSeq2SeqLM.from_config(copy.deepcopy(PAIRS["t5"]))
    model.config.dropout_rate = 0.25
    model.bfloat16().save_pretrained(tmp_path)
    network = adopt(tmp_path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close(network.head.weight, model.lm_head.weight.float(), rtol=0, atol=0)
    dropped = {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)}
    assert (dropped, network.config.dropout_rate) == ({0.25}, 0.25)
    assert {m.p for m in adopt(tmp_path, dropout=0.5).modules() if isinstance(m, torch.nn.Dropout)} == {0.5}


def test_fresh_weights_come_from_the_seed(tmp_path: Path) -> None:
    """A config.json alone is enough, also named itself; the same random state draws the same weights."""
    written(tmp_path, TEXTS["gpt2"])
    found = []
    for source, fresh in ((tmp_path, True), (tmp_path / "config.json", False)):
        torch.manual_seed(3)
        found.append(adopt(source, fresh=fresh).head.weight)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [*PAIRS, *TEXTS])
def test_an_empty_model_with_weights_loaded_is_whole(tmp_path: Path, name: str) -> None:
    """Nothing is drawn (the random state stays as it was), and with the weights of another it computes the same:
    neither a tied weight nor a table of positions is missing."""
    written(tmp_path, copy.deepcopy((PAIRS | TEXTS)[name]))
    drawn = adopt(tmp_path, fresh=True).eval()
    before = torch.get_rng_state()
    network = adopt(tmp_path, fresh=True, empty=True).eval()
    assert torch.equal(torch.get_rng_state(), before)
    load_file_state(network, drawn.file_state())
    inputs = {key: ids.remainder(50) + 2 for key, ids in drawn.one_sequence().items()}
    torch.testing.assert_close(network.hidden(**inputs), drawn.hidden(**inputs), rtol=0, atol=0)
    assert network.file_state().keys() == drawn.file_state().keys()


def test_a_directory_without_weights_says_how_to_draw_them(tmp_path: Path) -> None:
    """They are never drawn unasked."""
    assert refusal(written(tmp_path, TEXTS["gpt2"])) == (
        "CheckpointError: there are no weights beside config.json\n"
        f"  where  model.source: {tmp_path}\n"
        "  why    neither model.safetensors, its shards, nor pytorch_model.bin is there\n"
        "  try    model.fresh=true draws them from the seed"
    )


def test_weights_that_are_not_there_are_never_drawn(tmp_path: Path) -> None:
    """transformers would draw a tensor that is missing, or of another shape, and go on; it is named instead."""
    AutoModelForSeq2SeqLM.from_config(copy.deepcopy(PAIRS["t5"])).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["encoder.final_layer_norm.weight"]
    weights["encoder.block.0.layer.0.layer_norm.weight"] = torch.ones(7)
    save_file(weights, file, metadata={"format": "pt"})
    assert refusal(tmp_path) == (
        "CheckpointError: the weights are not all that config.json asks for: 2 tensors\n"
        f"  where  model.source: {tmp_path}\n"
        "  why    encoder.final_layer_norm.weight: missing\n"
        "         encoder.block.0.layer.0.layer_norm.weight: (7,) in the file, (16,) by config.json\n"
        "  try    the whole directory; or model.fresh=true, which draws all weights from the seed"
    )


def test_half_a_file_of_weights(tmp_path: Path) -> None:
    """A download that was cut off is an error, no traceback."""
    AutoModelForSeq2SeqLM.from_config(copy.deepcopy(PAIRS["t5"])).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    what, where, why, suggestion = refusal(tmp_path).splitlines()
    assert (what, where) == ("CheckpointError: the model cannot be read", f"  where  model.source: {tmp_path}")
    assert "incomplete metadata" in why
    assert suggestion == "  try    its files again, from where they came: one may be cut off, or not here at all"


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    """One NaN is enough for a loss that is none: the tensor it lies in is named before anything is trained."""
    model = AutoModelForSeq2SeqLM.from_config(copy.deepcopy(PAIRS["t5"]))
    with torch.no_grad():
        model.encoder.final_layer_norm.weight[3] = torch.nan
    model.save_pretrained(tmp_path)
    assert refusal(tmp_path) == (
        "CheckpointError: the weights hold numbers that are none: NaN or infinite in 1 tensor\n"
        f"  where  model.source: {tmp_path}\n"
        "  why    encoder.final_layer_norm.weight\n"
        "  try    an earlier checkpoint of that training, or the model's files again from where they came"
    )


def test_weights_that_are_a_program(tmp_path: Path) -> None:
    """A pickle that calls something is refused, it is not run, and nobody is told how to run it."""
    written(tmp_path, TEXTS["gpt2"])
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": _Touch(str(tmp_path / "ran"))}))
    assert refusal(tmp_path) == (
        "CheckpointError: the weights are refused: they are damaged, or hold more than tensors and plain values\n"
        f"  where  model.source: {tmp_path}\n"
        "  why    to read such a file is to run whatever code its writer put into it; it was not run\n"
        "  try    a .safetensors file of the same weights"
    )
    assert not (tmp_path / "ran").exists()


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the network nothing is looked for, and the error says what may be given."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shown = refusal("nobody/nothing").splitlines()
    assert shown[:2] == [
        "CheckpointError: the model nobody/nothing is neither here nor to be had from the hub",
        "  where  model.source: nobody/nothing",
    ]
    assert shown[-1] == (
        "  try    a directory with config.json and model.safetensors; or a name on the hub, and the network"
    )


def test_code_that_came_with_a_model_is_not_run(tmp_path: Path) -> None:
    """Not before the reader said so; then it is."""
    auto = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": auto}))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise ValueError('it ran')\n")
    assert refusal(tmp_path) == (
        f"CheckpointError: the model {tmp_path} comes with code of its own, which is not run\n"
        f"  where  model.source: {tmp_path}\n"
        "  why    whoever wrote it could do on this machine what you can\n"
        "  try    read it, then --trust-remote-code"
    )
    with pytest.raises(CheckpointError, match="comes with code of its own, which is not run"):
        learner(str(tmp_path))  # a run looks at its config first
    assert not (tmp_path / "ran").exists()
    with trusting():
        assert "it ran" in refusal(tmp_path)
    assert (tmp_path / "ran").exists()


def test_a_model_that_sees_what_it_is_to_predict_is_refused(tmp_path: Path) -> None:
    """A BERT has an output layer and would learn to copy: its loss would fall to nothing and mean nothing."""
    bert = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    shown = refusal(written(tmp_path, bert), ConfigError, fresh=True)
    assert shown == (
        "ConfigError: a bert as it is configured sees the tokens that it is to predict\n"
        f"  where  {tmp_path}\n"
        "  why    its attention is not causal, or hangs on how long a row is\n"
        "  try    a model that writes text; of BERT's kin one whose config.json says is_decoder: true"
    )
