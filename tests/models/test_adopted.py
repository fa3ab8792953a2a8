"""Adopted models: their losses and gradients are transformers' own, padded or packed, whole or in parts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import BART, LLAMA, PAIRS, T5, TEXTS, V, ids, made, padded, pair_batch, text_batch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BloomConfig,
    DogeConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    GlmConfig,
    GPTJConfig,
    GPTNeoXConfig,
    LEDConfig,
    Llama4TextConfig,
    LongT5Config,
    MambaConfig,
    MarianConfig,
    OPTConfig,
    PegasusConfig,
    PhiConfig,
    RecurrentGemmaConfig,
    ReformerConfig,
)

from ganeum.config.schema import Train
from ganeum.data.batch import IGNORED, Batch
from ganeum.errors import ConfigError
from ganeum.models import checkpointing
from ganeum.models.adopted import Adopted, check_logits, check_packing
from ganeum.models.pretrained import DROPOUTS
from ganeum.step.optimizer_step import OptimizerStep

EVERY = [*PAIRS, *TEXTS]
GRADIENTS = Train(optimizer="sgd", momentum=0.0, weight_decay=0.0, grad_clip=0.0)  # at rate 1 a weight loses its own


def config(name: str) -> Any:
    return copy.deepcopy((PAIRS | TEXTS)[name])


def examples(name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Sources and targets of three pairs; of texts the targets alone."""
    return [ids(n, n) for n in (5, 9, 2)], [ids(n, 50 + n) for n in (4, 3, 5)]


def batch(name: str, some: slice = slice(None)) -> Batch:
    sources, targets = examples(name)
    if name in PAIRS:
        return pair_batch(sources[some], targets[some], config(name).decoder_start_token_id)
    return text_batch(targets[some])


def learnt(model: Any, batches: list[Batch], mode: checkpointing.Mode = "none") -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients that our step has of a copy of the model."""
    network = Adopted(copy.deepcopy(model))
    checkpointing.apply(network.blocks, mode)
    before = {name: parameter.detach().clone() for name, parameter in network.model.named_parameters()}
    step = OptimizerStep(network, GRADIENTS, "cpu")
    targets = sum(part.counted for part in batches)
    loss = step(batches, targets=targets, step=0, learning_rate=1.0).loss
    after = network.model.named_parameters()
    return loss, {name: before[name] - parameter.detach() for name, parameter in after}


def theirs(name: str, model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """transformers' own loss from labels, with its mask of two dimensions and −100 for what does not count."""
    sources, targets = examples(name)
    if name in PAIRS:
        mask = padded([torch.ones_like(s) for s in sources], 0)
        loss = model(input_ids=padded(sources, 0), attention_mask=mask, labels=padded(targets, -100)).loss
    else:
        mask = padded([torch.ones_like(t) for t in targets], 0)
        loss = model(input_ids=padded(targets, 0), attention_mask=mask, labels=padded(targets, -100)).loss
    model.zero_grad()
    loss.backward()
    return loss.detach(), {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def assert_alike(ours: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(ours[0], other[0], rtol=1e-5, atol=1e-5)
    assert ours[1].keys() == other[1].keys()
    for name, gradient in other[1].items():
        close = 1e-5 * max(1.0, gradient.abs().max().item())  # sums of numbers of both signs, in another order
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=close, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", EVERY)
def test_loss_and_gradients_are_those_of_transformers(name: str) -> None:
    """Of three examples of different lengths, padded; every weight's gradient, to 1e-5 in fp32."""
    model = made(config(name))
    assert_alike(learnt(model, [batch(name)]), theirs(name, model))


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_in_parts_it_is_the_mean_over_tokens(name: str) -> None:
    """Two examples and one, with different numbers of targets, learn what the three learn at once."""
    model = made(config(name))
    parts = [batch(name, slice(0, 2)), batch(name, slice(2, 3))]
    assert_alike(learnt(model, parts), theirs(name, model))


@pytest.mark.parametrize("mode", ["selective", "whole"])
@pytest.mark.parametrize("name", EVERY)
def test_checkpointing_changes_no_bit(name: str, mode: Any) -> None:
    """The same loss and gradients, computed twice."""
    model = made(config(name))
    plain, again = learnt(model, [batch(name)]), learnt(model, [batch(name)], mode)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


def packed(name: str) -> Batch:
    """The three examples in one row, and two places of padding behind them."""
    sources, targets = examples(name)
    start = config(name).decoder_start_token_id if name in PAIRS else 0

    def numbers(rows: list[Tensor]) -> Tensor:
        parts = [torch.full_like(row, number) for number, row in enumerate(rows, start=1)]
        return torch.cat([*parts, torch.zeros(2, dtype=torch.int64)])[None].int()

    def row(rows: list[Tensor], value: int) -> Tensor:
        return torch.cat([*rows, torch.full((2,), value)])[None]

    if name in PAIRS:
        labels = row(targets, IGNORED)
        inputs = {
            "source_tokens": row(sources, 0),
            "source_segments": numbers(sources),
            "target_tokens": row([torch.cat((torch.tensor([start]), t[:-1])) for t in targets], 0),
            "target_segments": numbers(targets),
        }
    else:
        labels = row([t[1:] for t in targets], IGNORED)
        positions = torch.cat([*(torch.arange(len(t) - 1) for t in targets), torch.arange(2)])[None]
        inputs = {
            "tokens": row([t[:-1] for t in targets], 0),
            "segments": numbers([t[1:] for t in targets]),
            "positions": positions,
        }
    return Batch(inputs, labels, (labels.flatten() != IGNORED).nonzero().flatten())


@pytest.mark.parametrize("name", [name for name in EVERY if name != "bart"])  # which counts positions by itself
def test_packed_examples_do_not_see_each_other(name: str) -> None:
    """Three in one row: loss and gradients of the three in rows of their own."""
    model = made(config(name))
    assert_alike(learnt(model, [packed(name)]), theirs(name, model))


@pytest.mark.parametrize("name", [name for name in EVERY if name != "bart"])
def test_models_that_can_be_packed_are_told_from_others(name: str) -> None:
    """Those of the test above are taken, also with fresh weights, which are small."""
    check_packing(Adopted(made(config(name))))
    check_packing(adopted_fresh(config(name)))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("bart", PAIRS["bart"]),
        ("bloom", BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=V)),
        ("mamba", MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1, vocab_size=V)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_that_mixes_packed_examples_is_refused(kind: str, shape: Any) -> None:
    """BART counts positions through the whole row, BLOOM by the mask, and Mamba's state goes on."""
    with pytest.raises(ConfigError) as error:
        check_packing(adopted_fresh(shape))
    what, where, why, advice = str(error.value).splitlines()
    assert [what, where, advice] == [
        f"ConfigError: a {kind} reads several examples in a row otherwise than each alone",
        "  where  data.batching: packed",
        "  try    data.batching: buckets",
    ]
    assert why.startswith("  why    it c")


def adopted_fresh(shape: Any) -> Adopted:
    torch.manual_seed(0)
    shape = copy.deepcopy(shape)
    kind: Any = AutoModelForSeq2SeqLM if shape.is_encoder_decoder else AutoModelForCausalLM
    return Adopted(kind.from_config(shape))


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": V}
SIDES = {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")} | BART
MORE: dict[str, Any] = {
    "bias: Phi": PhiConfig(intermediate_size=32, **SMALL),
    "bias: GPT-J": GPTJConfig(n_embd=16, n_layer=2, n_head=4, rotary_dim=4, vocab_size=V),
    "cap: Gemma 2": Gemma2Config(
        intermediate_size=32, head_dim=8, num_key_value_heads=2, final_logit_softcapping=2.0, **SMALL
    ),
    "cap that stays: RecurrentGemma": RecurrentGemmaConfig(
        intermediate_size=32, lru_width=16, logits_soft_cap=2.0, attention_window_size=8,
        block_types=["recurrent", "attention"], **SMALL,
    ),
    "GPT-NeoX": GPTNeoXConfig(intermediate_size=32, **SMALL),
    "Falcon": FalconConfig(**SMALL),
    "several ends: GLM": GlmConfig(
        intermediate_size=32, head_dim=8, num_key_value_heads=2, pad_token_id=0, eos_token_id=[1, 2, 3], **SMALL
    ),
    "OPT": OPTConfig(ffn_dim=32, word_embed_proj_dim=16, **SMALL),
    "BLOOM": BloomConfig(hidden_size=16, n_layer=2, n_head=4, vocab_size=V),
    "masks of its own: Doge": DogeConfig(intermediate_size=32, num_key_value_heads=2, **SMALL),
    "bias behind the head: Marian": MarianConfig(d_model=16, vocab_size=V, pad_token_id=0, **SIDES),
    "bias behind the head: Pegasus": PegasusConfig(d_model=16, vocab_size=V, **SIDES),
    "masks of rows: LED": LEDConfig(d_model=16, vocab_size=V, attention_window=4, **SIDES),
    "masks of rows: LongT5": LongT5Config(**T5),
}  # fmt: skip


@pytest.mark.parametrize("kind", MORE)
def test_what_other_models_do_to_their_logits_and_masks_is_done(kind: str) -> None:
    """A bias, a cap, a bias behind it all: loss and gradients are those of transformers, of padded rows."""
    shape = copy.deepcopy(MORE[kind])
    for name in DROPOUTS:
        if hasattr(shape, name):
            setattr(shape, name, 0.0)
    shape.decoder_start_token_id = 2
    model = made(shape)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.copy_(torch.randn(1, V))
    name = "bart" if shape.is_encoder_decoder else "gpt2"
    sources, targets = examples(name)
    given = pair_batch(sources, targets, 2) if name == "bart" else text_batch(targets)
    network = Adopted(copy.deepcopy(model))
    check_logits(network, "here")
    assert network._output.whole == ("stays" in kind)
    assert (network.output().bias is not None) == ("bias" in kind or "LED" in kind)
    assert_alike(learnt(model, [given]), theirs(name, model))


SEEING_LITTLE: dict[str, Any] = {
    "in a part's config: Gemma 3 with pictures": Gemma3Config(
        text_config=LLAMA | {"head_dim": 4, "sliding_window": 3, "layer_types": ["sliding_attention"] * 2},
        vision_config=SMALL | {"intermediate_size": 16, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    ),
    "by chunks: Llama 4": Llama4TextConfig(
        **LLAMA, head_dim=4, intermediate_size_mlp=32, num_local_experts=1, attention_chunk_size=3,
        layer_types=["chunked_attention"] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SEEING_LITTLE)
def test_layers_that_see_little_see_no_more_here(kind: str) -> None:
    """Of rows longer than their windows the logits are the model's own; packed, too, or packing is refused."""
    model = made(copy.deepcopy(SEEING_LITTLE[kind])).eval()
    tokens = [ids(n, n) for n in (9, 5)]
    own = [model(input_ids=some[None], use_cache=False).logits[0] for some in tokens]
    network = Adopted(model).eval()

    def logits(tokens: Tensor, **more: Tensor) -> Tensor:
        return network.output().logits(network.hidden(tokens=tokens[None], **more))[0]

    for some, expected in zip(tokens, own, strict=True):
        torch.testing.assert_close(logits(some), expected, rtol=1e-4, atol=1e-4)
    if "chunks" in kind:  # counted from the row's start, they would lie otherwise in the second example
        with pytest.raises(ConfigError, match=r"no further than a part of the row, .* \(attention_chunk_size\)"):
            check_packing(network)
        return
    check_packing(network)
    segments = torch.cat([torch.full_like(some, n) for n, some in enumerate(tokens, start=1)])[None].int()
    positions = torch.cat([torch.arange(len(some)) for some in tokens])[None]
    found = logits(torch.cat(tokens), segments=segments, positions=positions)
    torch.testing.assert_close(found, torch.cat(own), rtol=1e-4, atol=1e-4)


def test_a_cap_is_found_however_small_the_logits_are() -> None:
    """Fresh weights' logits would pass through any cap as they are: the head is given large ones."""
    shape = copy.deepcopy(MORE["cap that stays: RecurrentGemma"])
    shape.logits_soft_cap = 30.0
    assert adopted_fresh(shape)._output.whole


def test_what_a_model_needs_besides_tokens_is_said() -> None:
    """Reformer's positions want rows of one length in training."""
    shape = ReformerConfig(
        axial_pos_embds_dim=[8, 8], axial_pos_shape=[4, 8], attention_head_size=4, attn_layers=["local"],
        is_decoder=True, hidden_size=16, feed_forward_size=32, num_attention_heads=4, vocab_size=V,
    )  # fmt: skip
    with pytest.raises(ConfigError) as error:
        check_logits(adopted_fresh(shape), "here")
    what, where, why = str(error.value).splitlines()
    assert what == "ConfigError: a reformer does not read rows of tokens alone"
    assert where == "  where  model.source"
    assert why.startswith("  why    If training, make sure that config.axial_pos_shape factors: (4, 8) multiply to")


class NoReading(TorchDispatchMode):
    """Fails where a value is read from the device: .item(), a truth value, a shape that depends on data."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("layout", [batch, packed], ids=["padded", "packed"])
@pytest.mark.parametrize("name", ["t5", "gpt2", "qwen3"])
def test_a_step_never_waits_for_the_device(name: str, layout: Any, precision: Any) -> None:
    """Nothing is taken from a tensor into Python, neither to look whether a mask is full nor how long a row is."""
    step = OptimizerStep(Adopted(made(config(name))), Train(), "cpu", precision=precision)
    found = layout(name)
    step([found], targets=found.counted, step=0, learning_rate=1e-3)
    with NoReading():
        step([found], targets=found.counted, step=1, learning_rate=1e-3)
    assert int(step.first_bad_step) == -1
