"""What `data.batching: auto` becomes: packed where the model can be told examples apart and rows are not too long."""

from pathlib import Path
from typing import Any

import pytest
import torch
from made_pairs import config, lines, opened, t5, texts
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from ganeum.data.examples.known import known
from ganeum.data.examples.model import PACKED, learner
from ganeum.models.adopted import Adopted, check_packing

SHAPE = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 16, "d_model": 16}
MORE = {"intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 4, "d_kv": 4, "d_ff": 32}


@pytest.mark.parametrize("kind", sorted(PACKED))
def test_what_is_packed_by_default_can_be_packed(kind: str) -> None:
    """Two examples in a row come out as each alone, in every layer, for every kind that is packed unasked."""
    torch.manual_seed(0)
    shape = AutoConfig.for_model(kind, **SHAPE, **MORE)
    theirs: Any = AutoModelForSeq2SeqLM if shape.is_encoder_decoder else AutoModelForCausalLM
    check_packing(Adopted(theirs.from_config(shape)))


@pytest.mark.parametrize(
    ("kind", "keys", "longest"),
    [("t5", {}, 64), ("llama", {}, 64), ("bart", {}, 0), ("qwen3", {"layer_types": ["sliding_attention"] * 2}, 0)],
)
def test_rows_are_packed_up_to_four_widths(tmp_path: Path, kind: str, keys: dict[str, object], longest: int) -> None:
    """Of a width of 16, rows of up to 64 tokens; none of models that nobody looked at, or that see through a window."""
    AutoConfig.for_model(kind, **SHAPE, **keys, decoder_start_token_id=0).save_pretrained(tmp_path)
    assert longest == learner(str(tmp_path)).packs


@pytest.mark.parametrize(("max_length", "batching"), [(64, "packed"), (65, "buckets")])
def test_auto_becomes_what_pays(tmp_path: Path, max_length: int, batching: str) -> None:
    """A T5 of width 16; the plan finds what was told under either name."""
    rows = [{"source": f"{i} {text}", "target": "a run"} for i, text in enumerate(texts(40, 12))]
    model, file = t5(tmp_path / "model"), lines(tmp_path / "a.jsonl", rows)
    keys: dict[str, Any] = {"max_length": max_length, "max_target_length": 16, "val_share": 0.2}
    examples = opened(model, file, **keys)
    assert batching == examples.layout.batching
    for name in ("auto", batching):
        told = known(config(model, file, batching=name, **keys))
        assert told is not None
        assert batching == told["batching"]
    assert "padded" == opened(model, file, batching="padded", **keys).layout.batching
