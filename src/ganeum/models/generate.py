"""Text from a model, one token after the other: KV cache, temperature, top-k, top-p, several texts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ganeum.models.cache import Cache
from ganeum.models.gpt import GPT
from ganeum.models.kernels import any_kernel

COLDEST = 1e-30  # below it a logit divided by the temperature may be no fp32 number: the likeliest token it is


@torch.no_grad()
@any_kernel()
def generate(
    model: GPT,
    prompt: Sequence[int],
    *,
    num_samples: int = 1,
    max_new_tokens: int = 128,
    temperature: float = 0.8,
    top_k: int | None = 200,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    end_of_text: int | None = None,
    on_token: Callable[[int, int | None], None] | None = None,
) -> list[list[int]]:
    """Continues `prompt` in `num_samples` ways → the new tokens of each, without the prompt and without end_of_text.

    The cache holds block_size tokens. When it is full, the last half of them is read again from position 0, and on it
    goes; so a text may be of any length, and each token sees at least half a context. This costs one reading of half a
    context for every half written: learned positions cannot be shifted, and a rotary cache that is shifted would let
    tokens see, through older layers' values, what was dropped long ago. Of a prompt longer than
    block_size only the last block_size tokens are read.

    Args:
        prompt: token ids, at least one.
        temperature: logits are divided by it; 0 takes the likeliest token, always.
        top_k: only among the k likeliest tokens.
        top_p: only among the likeliest tokens that together have this probability (Holtzman et al. 2020, section 3.1).
        generator: on the CPU, whatever the model's device. The first k texts are the same however many there are
            (but for rounding in larger batches), and whenever the others end.
        end_of_text: a text ends where this token is drawn.
        on_token: called as (which text, token) for every new token, and (which text, None) at its end; for live output.

    The model's mode (train, eval) and torch's strictness are the same afterwards; no global random state is touched.
    """
    # One uniform number a token, drawn at once: no random numbers to wait for between tokens.
    noise = torch.rand(num_samples, max_new_tokens, generator=generator)
    return continue_each(
        model,
        [prompt] * num_samples,
        noise,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        end_of_text=end_of_text,
        on_token=on_token,
    )


@torch.no_grad()
@any_kernel()
def continue_each(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    noise: Tensor,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    end_of_text: int | None = None,
    on_token: Callable[[int, int | None], None] | None = None,
) -> list[list[int]]:
    """Continues each of the prompts once, all at once → the new tokens of each, as :func:`generate` gives them.

    Nothing is padded: all texts begin at position 0, and while the shorter ones are written already, the longer ones
    are still read, a token each time. So prompts of like lengths belong together.

    Args:
        prompts: token ids, at least one in each.
        noise: (B, N) numbers from 0 up to 1: text i draws its n-th new token by
            ``noise[i, n]``, whatever the others are.
    """
    assert all(prompts), "a prompt has at least one token"
    was_training, device = model.training, model.token_embedding.weight.device
    model.eval()
    try:
        longest, N = model.config.block_size, noise.size(1)
        read = [list(prompt)[-longest:] for prompt in prompts]
        first, last = min(map(len, read)), max(map(len, read))
        later = [len(prompt) - first for prompt in read]  # steps before a text's first new token
        given = torch.tensor([prompt[first:] + [0] * (last - len(prompt)) for prompt in read]).to(device)
        # Which of its new tokens each text draws at a step, (B, S); below 0 it draws none yet.
        steps = (torch.arange(last - first + N)[None] - torch.tensor(later)[:, None]).to(device)
        noise = noise.to(device).gather(1, steps.clamp(0, N - 1))  # (B, S)
        tokens = torch.tensor([prompt[:first] for prompt in read], device=device)  # (B, T), grows
        texts: list[list[int]] = [[] for _ in read]
        writing = set(range(len(read)))
        cache, unread = Cache(model.config), tokens
        for n in range(steps.size(1)):
            hidden = model.hidden(unread, cache)[:, -1]  # (B, C)
            logits = model.head(hidden)[:, : model.vocab_size].float()  # (B, V): the padding is never drawn
            unread = choose(logits, noise[:, n : n + 1], temperature, top_k, top_p)  # (B, 1)
            if n < last - first:  # some prompts go on
                unread = torch.where(steps[:, n : n + 1] < 0, given[:, n : n + 1], unread)
            for i, token in enumerate(unread.flatten().tolist()):
                if i not in writing or n < later[i]:
                    continue
                if ended := token == end_of_text or n == later[i] + N:
                    writing.remove(i)
                else:
                    texts[i].append(token)
                if on_token:
                    on_token(i, None if ended else token)
            if not writing:
                break
            tokens = torch.cat((tokens[:, -longest + 1 :], unread), dim=1)
            if cache.length == longest:
                cache, unread = Cache(model.config), tokens[:, -max(1, longest // 2) :]
        for i in writing:
            if on_token:
                on_token(i, None)
        return texts
    finally:
        model.train(was_training)


def choose(logits: Tensor, noise: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """(B, V) logits and (B, 1) uniform numbers → (B, 1) tokens, by inverting the distribution function."""
    if temperature < COLDEST:
        return logits.argmax(dim=-1, keepdim=True)
    probabilities, tokens = likeliest(logits, temperature, top_k, top_p)
    upto = probabilities.cumsum(dim=-1)
    # The first place where the sum reaches the number: never an excluded one, its sum is that of the last included.
    place = torch.searchsorted(upto, noise * upto[:, -1:])
    return tokens.gather(1, place)


def likeliest(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn, likeliest first: (B, K) probabilities (top-p leaves their sum below 1) and ids."""
    sorted_logits, tokens = logits.topk(min(top_k or logits.size(-1), logits.size(-1)), dim=-1)  # (B, K)
    probabilities = torch.softmax(sorted_logits / temperature, dim=-1)
    if top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities  # what those before it hold together
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return probabilities, tokens
