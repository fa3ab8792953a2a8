"""Batches of examples: everything once an epoch, little padding, the same thing learnt however they are laid out."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import config, gpt2, lines, opened, t5, texts

from ganeum.config.schema import Config
from ganeum.data.batch import IGNORED, Batch, Whole
from ganeum.data.examples.batching import ExampleBatches
from ganeum.data.examples.buckets import edges, pieces
from ganeum.data.examples.epochs import Epochs
from ganeum.data.examples.examples import Examples
from ganeum.data.examples.packing import pack

LAYOUTS = ["buckets", "padded", "fixed", "packed"]
MODELS = ["t5", "gpt2"]
Learnt = Counter[tuple[tuple[int, ...], tuple[int, ...]]]  # what each example shows, and what is learnt of it


class Made:
    """The same 150 pairs for one model in every layout; sources of up to 64 tokens, targets of up to 16."""

    def __init__(self, directory: Path, model: str) -> None:
        self.model = (t5 if model == "t5" else gpt2)(directory / model)
        rows = zip(texts(150, 12), texts(150, 5, seed=1), strict=True)
        named = [{"source": f"{i} {source}", "target": target} for i, (source, target) in enumerate(rows)]
        self.file = lines(directory / f"{model}.jsonl", named)

    def run(self, batching: str, batch: dict[str, Any]) -> Config:
        return config(
            self.model, self.file, batching=batching, max_length=64, max_target_length=16, val_share=0.2, batch=batch
        )

    def examples(self, batching: str) -> Examples:
        run = self.run(batching, {})
        return opened(self.model, self.file, **run.data.model_dump(exclude={"train"}))

    def batches(self, batching: str, **batch: Any) -> ExampleBatches:
        return self.examples(batching).batches(self.run(batching, {"batch_size": 16} | batch))


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"), request.param)


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"), "t5")


def rows_of(batch: Batch) -> Iterator[tuple[list[int], list[int]]]:
    """What the model sees of every example, the decoder's inputs last, and its targets; by segments or masks."""
    named = {name: tensor.tolist() for name, tensor in batch.inputs.items()}
    targets = batch.targets.tolist()
    for b in range(len(batch)):
        width = len(targets[b])
        if "source_tokens" in named:
            s_width = len(named["source_tokens"][b])
            s = named.get("source_segments", named.get("source_mask", [[1] * s_width] * len(batch)))[b]
            # without segments a row ends with its last target: what stands behind it is padding
            last = max(i for i, id in enumerate(targets[b]) if id != IGNORED)
            t = named["target_segments"][b] if "target_segments" in named else [int(i <= last) for i in range(width)]
            for segment in sorted(set(s) - {0}):
                source = [id for id, where in zip(named["source_tokens"][b], s, strict=True) if where == segment]
                inputs = [id for id, where in zip(named["target_tokens"][b], t, strict=True) if where == segment]
                yield source + inputs, [id for id, where in zip(targets[b], t, strict=True) if where == segment]
        else:
            last = max(i for i, id in enumerate(targets[b]) if id != IGNORED)
            t = named["segments"][b] if "segments" in named else [int(i <= last) for i in range(width)]
            for segment in sorted(set(t) - {0}):
                inputs = [id for id, where in zip(named["tokens"][b], t, strict=True) if where == segment]
                yield inputs, [id for id, where in zip(targets[b], t, strict=True) if where == segment]


def learnt(whole: Whole, size: int = 4) -> Learnt:
    found: Learnt = Counter()
    for batch in whole.micro_batches(size):
        found.update((tuple(seen), tuple(targets)) for seen, targets in rows_of(batch))
    return found


def stored(examples: ExampleBatches, *, start: int | None) -> Learnt:
    """The same of every training example, straight from the store. ``start``: what a decoder begins with."""
    found: Learnt = Counter()
    for place in range(len(examples.part)):
        source, target = (examples.part.ids(side, place).tolist() for side in ("source", "target"))
        if start is not None:
            found[(*source, start, *target[:-1]), tuple(target)] += 1
        else:
            found[(*source, *target[:-1]), (*[IGNORED] * (len(source) - 1), *target)] += 1
    return found


@pytest.mark.parametrize("batching", LAYOUTS)
def test_an_epoch_is_every_example_once_and_whole(made: Made, batching: str) -> None:
    """In every layout each pair is seen once an epoch, uncut, beside no other; the next epoch has another order."""
    batches = made.batches(batching)
    seen: Learnt = Counter()
    for step in range(batches.steps_per_epoch):
        seen += learnt(batches.whole(step))
    start = 0 if batches.layout.source_edges[-1] else None
    assert stored(batches, start=start) == seen
    second = [learnt(batches.whole(batches.steps_per_epoch + step)) for step in range(2)]
    assert second != [learnt(batches.whole(step)) for step in range(2)]


@pytest.mark.parametrize("batching", ["buckets", "fixed", "packed"])
def test_a_step_learns_the_same_in_every_layout(made: Made, batching: str) -> None:
    """Layouts differ in where tokens lie, not in which examples a step learns from."""
    padded, other = made.batches("padded"), made.batches(batching)
    for step in (0, 3, padded.steps_per_epoch - 1):
        assert learnt(padded.whole(step)) == learnt(other.whole(step))
        assert padded.whole(step).targets == other.whole(step).targets


@pytest.mark.parametrize("batching", LAYOUTS)
def test_a_step_is_a_pure_function_of_seed_and_step(made: Made, batching: str) -> None:
    """Whoever asks for a step, after whatever, gets the same tensors; another seed gives others."""
    first, again = made.batches(batching), made.batches(batching)
    for step in (25, 0, 11):
        a, b = ([*some.whole(step).micro_batches(4)] for some in (first, again))
        for one, other in zip(a, b, strict=True):
            assert one.inputs.keys() == other.inputs.keys()
            assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
            assert torch.equal(one.targets, other.targets)
    other_seed = made.examples(batching).batches(made.run(batching, {"batch_size": 16}).model_copy(update={"seed": 1}))
    assert learnt(first.whole(0)) != learnt(other_seed.whole(0))


@pytest.mark.parametrize("batching", LAYOUTS)
@pytest.mark.parametrize("size", [1, 5, 16])
def test_what_counts_is_counted_on_the_cpu(made: Made, batching: str, size: int) -> None:
    """The targets of a whole are those of its micro-batches, each target once, and rows are their places."""
    whole = made.batches(batching).whole(1)
    batches = [*whole.micro_batches(size)]
    assert len(whole) == sum(len(batch) for batch in batches)
    assert whole.targets == sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    assert whole.tokens == sum(batch.tokens for batch in batches)
    for batch in batches:
        counted = (batch.targets.flatten() != IGNORED).nonzero().flatten()
        if batch.rows is None:
            assert len(counted) == batch.targets.numel()
        else:
            assert counted.tolist() == batch.rows.tolist()
    smaller = whole.first(3)
    assert min(3, len(whole)) == len(smaller)
    assert smaller.targets == sum(batch.counted for batch in smaller.micro_batches(size))


@pytest.mark.parametrize("batching", LAYOUTS)
def test_padding_is_counted(made: Made, batching: str) -> None:
    """What a batch says of its padding is its places less the tokens of its examples; so is the share told before."""
    batches = made.batches(batching)
    empty = places = 0
    for step in range(batches.steps_per_epoch):
        for batch in batches.whole(step).micro_batches(4):
            there = sum(t.numel() for name, t in batch.inputs.items() if name.endswith("tokens"))
            tokens = sum(len(seen) for seen, _ in rows_of(batch))
            assert (there - tokens, tokens) == (batch.padding, batch.tokens)
            empty, places = empty + batch.padding, places + there
    assert empty / places == pytest.approx(batches.padding(4, steps=batches.steps_per_epoch))


def test_tokens_stand_at_the_left(made: Made) -> None:
    """In training, padding comes behind: no row has a token behind a place without one."""
    for batch in made.batches("padded").whole(0).micro_batches(8):
        if "source_mask" in batch.inputs:
            mask = batch.inputs["source_mask"].int()
            assert (mask.diff(dim=1) <= 0).all()
            assert mask[:, 0].all()
        ends = [max(i for i, id in enumerate(row) if id != IGNORED) for row in batch.targets.tolist()]
        assert max(ends) == batch.targets.shape[1] - 1  # and none is longer than the longest


def test_fixed_is_as_long_as_a_config_says(made: Made) -> None:
    """Every batch has one shape: the two lengths, or for a causal model both in one row."""
    shapes = {
        tuple(tuple(batch.inputs[name].shape[1:]) for name in batch.inputs if name.endswith("tokens"))
        for step in range(8)
        for batch in made.batches("fixed").whole(step).micro_batches(4)
    }
    assert shapes in ({((64,), (16,))}, {((80,),)})


def test_buckets_are_few_shapes_with_less_padding(made: Made) -> None:
    """Lengths are multiples of 8 and rows powers of two, of which there are few; and less is padding."""
    batches, padded = (made.batches(batching, batch_size=64) for batching in ("buckets", "padded"))
    found = set()
    for step in range(2 * batches.steps_per_epoch):
        whole = batches.whole(step)
        shapes = [
            (len(batch), *(t.shape[1] for name, t in batch.inputs.items() if name.endswith("tokens")))
            for batch in whole.micro_batches(16)
        ]
        assert [tuple(n for n in shape if n) for shape in whole.shapes(16)] == shapes
        found.update(shapes)
    assert all(rows.bit_count() == 1 and not any(n % 8 for n in lengths) for rows, *lengths in found)
    assert len({tuple(lengths) for _, *lengths in found}) <= 8
    assert batches.padding(64) < 0.85 * padded.padding(64)


def test_buckets_take_no_more_places_than_so_many_of_the_longest(made: Made) -> None:
    """Short examples go at once in larger numbers, and take no more memory than so many of the longest."""
    batches = made.batches("buckets", batch_size=64)
    source, target = batches.layout.largest
    for size in (1, 3, 16):
        shapes = batches.whole(0).shapes(size)
        assert 64 == sum(rows for rows, _, _ in shapes)
        assert all(rows * s <= size * source and rows * t <= size * target for rows, s, t in shapes)
    assert max(rows for rows, _, _ in batches.whole(0).shapes(1)) > 1


def test_a_gpu_gets_larger_pieces(made: Made) -> None:
    """What starting a micro-batch takes is as much as computing more places there: fewer pieces, more padding."""
    cpu = made.batches("buckets", batch_size=64)
    run = made.run("buckets", {"batch_size": 64}).model_copy(update={"device": "cuda:0"})
    gpu = made.examples("buckets").batches(run)
    assert learnt(cpu.whole(0)) == learnt(gpu.whole(0))
    assert len(gpu.whole(0).shapes(64)) < len(cpu.whole(0).shapes(64))
    assert gpu.padding(64) > cpu.padding(64)


def test_packed_rows_keep_examples_apart(made: Made) -> None:
    """Segments are numbered from 1, stand in one piece, and positions begin anew in each."""
    batches = made.batches("packed")
    rows = 0
    for batch in batches.whole(0).micro_batches(4):
        rows += len(batch)
        for name in [name for name in batch.inputs if name.endswith("segments")]:
            for row in batch.inputs[name].tolist():
                numbers = [here for before, here in pairwise([0, *row]) if here != before]
                segments = [n for n in numbers if n]
                assert list(range(1, len(segments) + 1)) == segments
                assert 0 not in numbers[:-1]
        if "positions" in batch.inputs:
            for positions, segments in zip(*(batch.inputs[n].tolist() for n in ("positions", "segments")), strict=True):
                for before, here, p, q in zip(segments, segments[1:], positions, positions[1:], strict=False):
                    assert q == (p + 1 if here == before and here else 0)
                assert positions[0] == 0
    assert rows < 16  # fewer rows than examples, or nothing was packed
    assert batches.padding(16) < made.batches("fixed").padding(16)


def test_the_longest_come_first_and_no_batch_is_larger_than_told(made: Made) -> None:
    """A step's first micro-batch needs the most memory, and longest() as much as any other at least."""
    for batching in LAYOUTS:
        batches = made.batches(batching)
        (largest,) = batches.longest().micro_batches(16)
        whole = batches.longest()
        assert (len(whole), whole.targets) == (16, sum(batch.counted for batch in whole.micro_batches(5)))
        assert whole.tokens == largest.tokens
        assert 0 == largest.padding
        for step in range(batches.steps_per_epoch):
            each = [*batches.whole(step).micro_batches(4)]
            sizes = [sum(t.numel() for n, t in batch.inputs.items() if n.endswith("tokens")) for batch in each]
            assert sizes[0] == max(sizes)
            for batch in each:
                for name in [name for name in batch.inputs if name != "source_mask"]:
                    assert batch.inputs[name].shape[1] <= largest.inputs[name].shape[1]


@pytest.mark.parametrize("batching", ["padded", "buckets"])
def test_steps_of_so_many_tokens(made: Made, batching: str) -> None:
    """batch_tokens: steps of about as many tokens, none of them empty, together every example once."""
    batches = made.batches(batching, batch_tokens=500)
    tokens = [sum(b.tokens for b in batches.whole(s).micro_batches(3)) for s in range(batches.steps_per_epoch)]
    assert int(batches.part.tokens.sum()) == sum(tokens)
    assert round(sum(tokens) / 500) == len(tokens)
    longest = int(batches.part.tokens.max())
    assert all(abs(count - sum(tokens) / len(tokens)) <= longest for count in tokens)


def test_the_last_step_of_an_epoch_is_what_is_left(seq2seq: Made) -> None:
    """Where batch_size does not divide, the last step is smaller; a batch larger than the data is all of the data."""
    batches = seq2seq.batches("padded", batch_size=32)
    count = len(batches.part)
    assert [32] * (count // 32) + [count % 32] == [len(batches.whole(step)) for step in range(math.ceil(count / 32))]
    everything = seq2seq.batches("packed", batch_size=4096)
    assert 1 == everything.steps_per_epoch
    assert stored(everything, start=0) == learnt(everything.whole(0)) == learnt(everything.whole(1))


def test_held_out_examples_are_always_the_same(made: Made) -> None:
    """eval_tokens of them, spread over all; "all": each once. Bytes are those of their targets' text."""
    examples = made.examples("padded")
    whole, size = examples.validation(made.run("padded", {"eval_tokens": "all"}))
    assert len(examples.val) == len(whole)
    assert sum(len(one.target.encode()) for one in examples.references(1000)) == size
    some, _ = examples.validation(made.run("padded", {"eval_tokens": 100}))
    assert abs(some.targets - 100) < 40
    again, _ = examples.validation(made.run("padded", {"eval_tokens": 100}))
    assert learnt(some) == learnt(again)


def test_a_trace_names_the_examples_of_a_step(seq2seq: Made) -> None:
    """The tensors of a whole step, and the numbers of its examples in the order of its rows."""
    batches = seq2seq.batches("padded")
    tensors, words = batches.trace(3)
    store = batches.part.store
    for number, row in zip(tensors["examples"].tolist(), tensors["targets"].tolist(), strict=True):
        assert store.ids("target", number).tolist() == [id for id in row if id != IGNORED]
    assert "its inputs, targets, and the numbers of its examples" == words


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 4))
@settings(max_examples=60)
def test_edges_are_the_best_there_are(lengths: list[int], most: int) -> None:
    """No choice of as many multiples of 8 has fewer places: every choice is tried."""

    def places(chosen: tuple[int, ...]) -> int:
        return sum(min(edge for edge in chosen if edge >= length) for length in lengths)

    found = edges(np.array(lengths, np.int32), 64, most)
    top = -(-max(lengths) // 8) * 8
    below = range(8, top, 8)
    choices = [(*some, top) for n in range(most) for some in combinations(below, n)]
    assert found[-1] == top
    assert len(found) <= most
    assert min(map(places, choices)) == places(found)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=9),
    st.tuples(st.integers(1, 40), st.integers(1, 20)),
    st.integers(0, 30),
)
def test_pieces_are_the_cheapest_there_are(shapes: list[tuple[int, int]], most: tuple[int, int], overhead: int) -> None:
    """Every way to cut the rows into 1, 2, 4 or 8 of them that fit is tried: none costs less."""

    def shape(begin: int, end: int) -> tuple[int, int]:
        return max(s for s, _ in shapes[begin:end]), max(t for _, t in shapes[begin:end])

    def fits(begin: int, end: int) -> bool:
        rows, (s, t) = end - begin, shape(begin, end)
        return rows == 1 or (rows in (2, 4, 8) and rows * s <= most[0] and rows * t <= most[1])

    def cost(cuts: tuple[int, ...]) -> float:
        if not all(fits(*ends) for ends in pairwise(cuts)):
            return math.inf
        return sum(overhead + (end - begin) * sum(shape(begin, end)) for begin, end in pairwise(cuts))

    count = len(shapes)
    ways = [(0, *some, count) for n in range(count) for some in combinations(range(1, count), n)]
    assert min(map(cost, ways)) == cost(tuple(pieces(shapes, most, overhead)))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=60))
def test_packing_fits_and_wastes_no_row(lengths: list[tuple[int, int]]) -> None:
    """Every example once, no row over its room, and no two rows that would fit into one."""
    sources, targets = (np.array(side, np.int32) for side in zip(*lengths, strict=True))
    rows = pack(sources, targets, 50, 20)
    assert list(range(len(lengths))) == sorted(example for row in rows for example in row)
    used = [(int(sources[row].sum()), int(targets[row].sum())) for row in rows]
    assert all(s <= 50 and t <= 20 for s, t in used)
    assert not any(a[0] + b[0] <= 50 and a[1] + b[1] <= 20 for i, a in enumerate(used) for b in used[i + 1 :])


@given(st.lists(st.integers(1, 90), min_size=1, max_size=80), st.integers(1, 300), st.integers(0, 5))
def test_every_epoch_is_cut_into_the_same_number_of_full_steps(
    lengths: list[int], batch_tokens: int, epoch: int
) -> None:
    """By tokens too: no step is empty, even where one example is longer than a step, and every example comes once."""
    tokens = np.array(lengths, np.int32)
    epochs = Epochs(tokens, 1, batch_tokens, seed=3)
    made = epochs.epoch(epoch)
    steps = [made.at(step).tolist() for step in range(epochs.steps)]
    assert all(steps)
    assert list(range(len(lengths))) == sorted(place for step in steps for place in step)
