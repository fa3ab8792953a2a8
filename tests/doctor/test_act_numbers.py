"""Acts on numbers, memory, kernels and models of transformers; several of them on one training."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_training import Sound, Tiny, apart, batches, calls, collects, dense, losses, recomputing, saw
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ganeum.doctor.measured import acts, facts, remedies
from ganeum.doctor.measured.training import Training
from ganeum.step import allocator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")


def small_pages() -> None:
    """This process faults 4 KiB in at a time: with huge pages, which some machines give to everything, 32 MiB are 16
    faults that a step's other ones drown."""
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE


def test_bf16_computes_in_bf16_and_gives_logits_in_fp32() -> None:
    """The losses are those of fp32 within bf16's rounding."""

    def look() -> tuple[str, str, list[float]]:
        training = acts.bf16(Sound().build())
        inside: list[str] = []
        training.model.blocks[0].up.register_forward_hook(lambda _m, _i, out: inside.append(str(out.dtype)))  # type: ignore[union-attr,index]
        found = losses(training)
        return inside[0], str(training.model(batches()[0]["input_ids"]).dtype), found

    inside, outside, found = apart(look)
    assert (inside, outside) == ("torch.bfloat16", "torch.float32")
    assert found == pytest.approx(apart(lambda: losses(Sound().build())), rel=2e-2)


def test_weights_in_16_bits_become_fp32() -> None:
    """A CPU computes fp16 in steps of its own; the losses are those of fp32 weights that were rounded once."""

    def look() -> tuple[list[str], list[str], list[float]]:
        halved = Sound(model=lambda: Tiny().half())
        chosen = [one.name for one in remedies.of_training(facts.of(halved.build())) if one.act == "single"]
        training = acts.single(halved.build())
        return chosen, sorted({str(p.dtype) for p in training.model.parameters()}), losses(training)

    chosen, kinds, found = apart(look)
    assert (chosen, kinds) == (["fp32 weights"], ["torch.float32"])
    assert found == pytest.approx(apart(lambda: losses(Sound().build())), rel=1e-2)


def test_autocast_is_switched_off() -> None:
    """Where a device only emulates it."""

    def look() -> str:
        acts.fp32(Sound().build())
        with torch.autocast("cpu", torch.bfloat16):
            return str((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)

    assert apart(look) == "torch.float32"


def test_kept_memory_is_not_faulted_in_again() -> None:
    """A step that takes 32 MiB and gives it back faults it in each time; afterwards hardly ever."""
    if torch.empty(0).is_cuda or not sys.platform.startswith("linux"):
        pytest.skip("glibc's malloc")

    def look() -> tuple[float, float]:
        small_pages()
        malloc = ctypes.CDLL(None)
        # M_TRIM_THRESHOLD, M_MMAP_MAX and M_MMAP_THRESHOLD at glibc's defaults: earlier trainings in the process that
        # this one is forked from may have moved them, and a block from the heap stays where a smaller one lies behind.
        for which, value in ((-1, 128 << 10), (-4, 1 << 16), (-3, 128 << 10)):
            malloc.mallopt(which, value)

        def large(_: Training) -> None:
            torch.empty(8 << 20).fill_(1.0)

        before = facts.of(Sound(after=large).build())["page_faults"]
        return before, facts.of(acts.memory_kept(Sound(after=large).build()))["page_faults"]

    before, after = apart(look)
    assert before > 3 * after


def test_memory_is_not_handed_back_by_hand() -> None:
    """malloc_trim() behind each step: 32 MiB that were kept are faulted in again; afterwards hardly any, whether the
    function is held or looked up anew. Without it in the training nothing is said of it."""
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("glibc's malloc")

    def look() -> list[Any]:
        small_pages()
        allocator.keep_freed_memory()
        gc.collect()  # what only looked whether there is one
        sound = len(acts.host.trims())
        held = ctypes.CDLL(None).malloc_trim

        def large(_: Training) -> None:
            torch.empty(8 << 20).fill_(1.0)
            (held if len(counts) % 2 else ctypes.CDLL(None).malloc_trim)(0)
            counts.append(1)

        counts: list[int] = []
        before = facts.of(Sound(after=large).build())
        after = facts.of(acts.memory_kept(Sound(after=large).build()))
        return [sound, before["trims"], before["page_faults"], after["page_faults"]]

    sound, trims, before, after = apart(look)
    assert sound == 0 < trims
    assert before > 3 * after


def test_models_of_transformers() -> None:
    """Eager attention becomes fused, checkpointing by their switch goes, the cache and attention weights too; the
    same is learnt."""
    transformers = pytest.importorskip("transformers")

    def gpt2(**settings: Any) -> nn.Module:
        config = transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, vocab_size=48, n_positions=64, attn_pdrop=0.0, embd_pdrop=0.0,
            resid_pdrop=0.0, **settings,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)  # type: ignore[no-any-return]

    def recomputed() -> nn.Module:
        model: Any = gpt2()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return model  # type: ignore[no-any-return]

    def eager() -> nn.Module:
        return gpt2(attn_implementation="eager")

    def reads() -> nn.Module:
        return gpt2(attn_implementation="eager", output_attentions=True)

    def mended(make: Callable[[], nn.Module], act: str) -> tuple[list[str], list[float], list[float], list[str]]:
        as_it_is = losses(Sound(model=make).build())
        chosen = [str(one.act) for one in remedies.of_training(facts.of(Sound(model=make).build()))]
        training = getattr(acts, act)(Sound(model=make).build())
        found = losses(training)
        after = [str(one.act) for one in remedies.of_training(facts.of(training))]
        return chosen, as_it_is, found, after

    losses(Sound(model=gpt2).build(), 1)  # loads what it needs, before processes are forked
    for make, act in ((recomputed, "not_recomputed"), (eager, "sdpa"), (reads, "fewer_outputs"), (gpt2, "no_cache")):
        chosen, as_it_is, found, after = apart(lambda make=make, act=act: mended(make, act))
        assert act in chosen, act
        assert act not in after, act
        assert found == pytest.approx(as_it_is, rel=1e-4)


def test_two_remedies_go_together() -> None:
    """Acts are done one after the other, on one training."""

    def look() -> tuple[bool, bool, list[float]]:
        sound = Sound(after=lambda _: gc.collect(), model=recomputing, data=dense())  # type: ignore[arg-type,return-value]
        training = sound.build()
        for act in ("not_recomputed", "cut_padding", "no_collecting", "no_hooks"):
            with contextlib.suppress(acts.NotApplicable):
                training = getattr(acts, act)(training)
        return calls(training), collects(training), losses(acts.kept_batches(training), 2)

    again, collected, found = apart(look)
    assert not again
    assert not collected
    assert len(found) == 2


def test_kernels_asked_for_inside_a_step_are_overruled() -> None:
    """The whole forward pass runs within somebody's choice of kernels."""

    def look() -> bool:
        training = Sound().build()
        own = training.step

        def within(batch: Any) -> Any:
            with sdpa_kernel([SDPBackend.MATH]):
                return own(batch)

        training.step = within
        without = saw("flash", lambda on: not on)
        return without(training) and not without(acts.all_kernels(training))

    assert apart(look)


def test_a_vocabulary_is_padded_before_the_first_update() -> None:
    """The optimizer moves the new table; tokens keep their rows, and a table that fits is left alone."""
    transformers = pytest.importorskip("transformers")

    def gpt2(vocabulary: int) -> Callable[[], nn.Module]:
        config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=vocabulary, n_positions=64)
        return lambda: transformers.GPT2LMHeadModel(config)  # type: ignore[no-any-return]

    def look() -> tuple[tuple[int, int], bool, bool]:
        training = Sound(model=gpt2(50)).build()
        before = training.model.get_input_embeddings().weight.detach().clone()  # type: ignore[union-attr,operator]
        training = acts.vocabulary_padded(training)
        table = training.model.get_input_embeddings().weight  # type: ignore[union-attr,operator]
        same, first = torch.equal(table[:50], before), table.detach().clone()
        losses(training)
        return tuple(table.shape), same, not torch.equal(table, first)

    losses(Sound(model=gpt2(50)).build(), 1)
    assert apart(look) == ((64, 16), True, True)
    with pytest.raises(acts.NotApplicable, match="a multiple of 64 already"):
        acts.vocabulary_padded(Sound(model=gpt2(64)).build())


def test_compiling_is_asked_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forward pass goes through torch.compile, whose kernels come with the first step."""
    asked: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: asked.append(function) or function)
    training = acts.compiled(Sound().build())
    found = losses(training)
    assert len(asked) == 1
    assert found == pytest.approx(losses(Sound().build()), rel=1e-4)


def test_a_text_is_tokenised_once() -> None:
    """By a tokenizer of transformers in the loader: its batches come again without it."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<pad>": 0, "a": 1, "small": 2, "cat": 3}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>")

    class Texts:
        def __iter__(self) -> Any:
            for _ in range(8):
                ids = tokenizer(["a small cat", "a cat"], padding=True, return_tensors="pt")
                yield {**ids, "labels": ids["input_ids"]}

    def look() -> tuple[list[str], list[float], list[float], int]:
        chosen = [str(one.act) for one in remedies.of_training(facts.of(Sound(data=Texts()).build()))]
        as_it_is = losses(Sound(data=Texts()).build())
        training = acts.tokenised_before(Sound(data=Texts()).build())
        calls_left: list[int] = []
        own = type(tokenizer)._call_one if hasattr(type(tokenizer), "_call_one") else type(tokenizer)._encode_plus
        name = own.__name__
        setattr(type(tokenizer), name, lambda *inputs, **named: calls_left.append(1) or own(*inputs, **named))
        return chosen, as_it_is, losses(training), len(calls_left)

    chosen, as_it_is, found, calls_left = apart(look)
    assert "tokenised_before" in chosen
    assert found == pytest.approx(as_it_is, rel=1e-5)
    assert calls_left == 0


def test_python_no_longer_looks_for_cycles_by_itself() -> None:
    """And what was there is left out when it is asked to."""

    def look() -> tuple[bool, bool]:
        acts.pauses_off(Sound().build())
        return gc.isenabled(), gc.get_freeze_count() > 1_000

    assert apart(look) == (False, True)
