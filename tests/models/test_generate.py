"""Generation: the same tokens as transformers, the distribution that was asked for, and nothing but real tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ganeum.config.schema import Model
from ganeum.models.build import build
from ganeum.models.cache import Cache
from ganeum.models.formats import from_gpt2_names
from ganeum.models.generate import choose, continue_each, generate, likeliest
from ganeum.models.weights import load_file_state


def pair(block_size: int = 32) -> tuple[torch.nn.Module, GPT2LMHeadModel]:
    """Our model and transformers' with the same weights, wide enough apart that the likeliest token is clear."""
    torch.manual_seed(3)
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 50}
    theirs = GPT2LMHeadModel(GPT2Config(**shape, n_positions=block_size, initializer_range=0.4)).eval()
    ours = build(Model(**shape, block_size=block_size, bias=True))
    load_file_state(ours, from_gpt2_names(theirs.state_dict(), transposed=True, tied=True))
    return ours, theirs


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prompt", [[7], [1, 2, 3, 4, 5], list(range(20))])
def test_greedy_tokens_are_those_of_transformers(prompt):
    """With temperature 0, every token is the one that transformers' generate takes."""
    ours, theirs = pair()
    length = 32 - len(prompt)
    expected = theirs.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=length,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    assert len(set(expected)) > 3
    assert generate(ours, prompt, max_new_tokens=length, temperature=0.0) == [expected]


def test_the_cache_changes_nothing():
    """Reading token by token with the cache gives the logits of reading all at once."""
    ours, _ = pair()
    ours.eval()
    tokens, cache = torch.randint(50, (3, 32)), Cache(ours.config)
    with torch.no_grad():
        pieces = [ours(tokens[:, :5], cache)] + [ours(tokens[:, i : i + 1], cache) for i in range(5, 32)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), ours(tokens), rtol=1e-4, atol=1e-4)


def test_beyond_the_context_half_of_it_is_read_again():
    """When the context is full, the next token follows from its last half, read from position 0."""
    ours, theirs = pair(block_size=8)
    text, window = [5, 6, 7], [5, 6, 7]
    for _ in range(40):
        with torch.no_grad():
            token = theirs(torch.tensor([window])).logits[0, -1].argmax().item()
        text.append(token)
        window = [*window, token] if len(window) < 8 else text[-4:]
    assert generate(ours, [5, 6, 7], max_new_tokens=40, temperature=0.0) == [text[3:]]


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_contexts(block_size):
    """Even a context of one token can be written beyond."""
    assert len(generate(pair(block_size)[0], [1], max_new_tokens=9, generator=seeded(0))[0]) == 9


def test_of_a_long_prompt_the_end_is_read():
    """A prompt longer than the context counts with its last block_size tokens."""
    ours, _ = pair(block_size=8)
    prompt = list(range(30))
    assert generate(ours, prompt, temperature=0.0, max_new_tokens=9) == generate(
        ours, prompt[-8:], temperature=0.0, max_new_tokens=9
    )


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.7, None, None), (1.0, 5, None), (1.0, None, 0.6), (1.3, 7, 0.8), (1.0, 500, 1.0)],
)
def test_the_distribution_is_that_of_transformers(temperature, top_k, top_p):
    """Temperature, top-k and top-p leave the probabilities that transformers' own warpers leave."""
    logits = torch.randn(4, 50, generator=seeded(1)) * 2
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p:
        expected = TopPLogitsWarper(top_p)(None, expected)
    probabilities, tokens = likeliest(logits, temperature, top_k, top_p)
    ours = torch.zeros(4, 50).scatter(1, tokens, probabilities / probabilities.sum(dim=1, keepdim=True))
    torch.testing.assert_close(ours, expected.softmax(dim=1))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    noise=st.floats(0, 1, exclude_max=True, width=32),
    temperature=st.floats(0.01, 5),
    top_k=st.none() | st.integers(1, 60),
    top_p=st.none() | st.floats(0.01, 1),
)
def test_what_is_excluded_is_never_drawn(seed, noise, temperature, top_k, top_p):
    """Whatever the number drawn, 0 and the largest below 1 too, the token is one of those that may be drawn."""
    logits = torch.randn(1, 50, generator=seeded(seed)) * 5
    token = choose(logits, torch.tensor([[noise]]), temperature, top_k, top_p)
    probabilities, tokens = likeliest(logits, temperature, top_k, top_p)
    assert token.item() in tokens[probabilities > 0].tolist()


def test_tokens_come_as_often_as_they_should():
    """Over 20,000 evenly spaced numbers each token comes as often as its probability says, to within one."""
    logits = torch.randn(1, 10, generator=seeded(2))
    numbers = (torch.arange(20_000) + 0.5)[:, None] / 20_000
    drawn = choose(logits.expand(20_000, 10), numbers, 1.0, None, None).flatten()
    torch.testing.assert_close(
        drawn.bincount(minlength=10).float(), logits.softmax(dim=1)[0] * 20_000, atol=1.01, rtol=0
    )


def test_the_same_seed_writes_the_same_text():
    """A seed fixes the texts, another gives others, and asking for more texts does not change the first ones."""
    ours, _ = pair()
    first = generate(ours, [1, 2], num_samples=3, generator=seeded(5), temperature=1.0)
    assert generate(ours, [1, 2], num_samples=3, generator=seeded(5), temperature=1.0) == first
    assert generate(ours, [1, 2], num_samples=2, generator=seeded(5), temperature=1.0) == first[:2]
    assert generate(ours, [1, 2], num_samples=3, generator=seeded(6), temperature=1.0) != first
    assert first[0] != first[1]


def test_padding_is_never_written():
    """Rows that only pad the vocabulary are never drawn, even if something made them the likeliest."""
    ours, _ = pair()
    with torch.no_grad():
        ours.head.weight[50:] = 100 * torch.randn(14, 32, generator=seeded(0))
    texts = generate(ours, [1], num_samples=8, temperature=2.0, top_k=None, generator=seeded(0))
    assert max(max(text) for text in texts) < 50


def test_a_text_ends_at_its_end():
    """Each text stops at end_of_text, without it, while the others go on; the callback saw each token and each end."""
    ours, _ = pair()
    arguments = {"num_samples": 6, "temperature": 1.5, "max_new_tokens": 30, "top_k": None}
    free = generate(ours, [1], generator=seeded(1), **arguments)
    end = free[0][10]
    seen: list[list[int | None]] = [[] for _ in free]
    stopped = generate(
        ours, [1], generator=seeded(1), end_of_text=end, on_token=lambda i, token: seen[i].append(token), **arguments
    )
    assert stopped == [text[: text.index(end)] if end in text else text for text in free]
    assert len({len(text) for text in stopped}) > 1
    assert seen == [[*text, None] for text in stopped]


def test_training_is_not_disturbed():
    """Generation leaves the model in training mode, the global random numbers untouched, and itself without dropout."""
    model = build(Model(n_layer=1, n_head=1, n_embd=16, block_size=8, vocab_size=50, dropout=0.5))
    before = torch.random.get_rng_state()
    first = generate(model, [1], generator=seeded(1))
    assert first == generate(model, [1], generator=seeded(1))
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())


def test_tiny_temperatures_do_not_overflow():
    """As the temperature falls towards 0 the text becomes the greedy one."""
    ours, _ = pair()
    greedy = generate(ours, [1], temperature=0.0)
    assert generate(ours, [1], temperature=1e-6, generator=seeded(0)) == greedy


@pytest.mark.parametrize("lenient", [False, True])
def test_it_draws_where_training_has_made_torch_strict(monkeypatch, lenient):
    """A GPU has no cumulative sum in a fixed order: generate asks for none, and leaves torch as strict as it was."""
    cumsum = torch.Tensor.cumsum

    def as_on_a_gpu(tensor, *args, **options):
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set …")
        return cumsum(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "cumsum", as_on_a_gpu)
    torch.use_deterministic_algorithms(True, warn_only=lenient)
    try:
        assert len(generate(pair()[0], [1], max_new_tokens=3, top_p=0.9)[0]) == 3
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == lenient
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("block_size", [8, 32])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_prompts_of_any_lengths_are_continued_as_each_alone(block_size, temperature):
    """Written together, texts with prompts of 1 to 12 tokens are those that each prompt has alone with its numbers."""
    ours, _ = pair(block_size)
    prompts = [[7], [1, 2, 3, 4, 5], list(range(12)), [3, 3], [9]]
    noise = torch.rand(5, 14, generator=seeded(2))
    (free,) = continue_each(ours, prompts[1:2], noise[1:2], temperature=temperature)
    how = {"temperature": temperature, "end_of_text": free[5]}  # so that one text ends before the others
    alone = [
        continue_each(ours, [prompt], numbers[None], **how)[0] for prompt, numbers in zip(prompts, noise, strict=True)
    ]
    assert len(alone[1]) < 14
    assert alone == continue_each(ours, prompts, noise, **how)


def test_each_text_ends_after_its_own_tokens():
    """A text whose prompt is short has as many new tokens as one whose prompt is long, and is told to end as early."""
    ours, _ = pair()
    told = []
    texts = continue_each(
        ours, [[1], [1, 2, 3, 4]], torch.rand(2, 5), temperature=1.0, on_token=lambda i, token: told.append((i, token))
    )
    assert [5, 5] == [len(text) for text in texts]
    assert [(0, None), (1, None)] == [(i, token) for i, token in told if token is None]
