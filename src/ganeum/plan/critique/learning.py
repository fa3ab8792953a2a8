"""What the model can learn: how much text for its size, how often, at which rate, in batches of which size."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ganeum import units
from ganeum.plan import scaling_laws
from ganeum.plan.critique.facts import Facts, Warning

GOOD_REPEATS, USELESS_REPEATS = 4, 16
CHINCHILLA = 20  # tokens a parameter
FAR_RATE, SLOW_RATE = 5.0, 0.1  # of the usual learning rate
FAR_BATCH = 4.0  # of the critical batch
FAR_FROM_TRAINED, USUAL_FOR_TRAINED = 5e-4, 1e-4  # learning rates for weights that were trained by others


def worth(repeats: float) -> float:
    """How many passes over new text as many passes over the same text are worth: ``1 + R* (1 - e^(-(n - 1) / R*))``
    (Muennighoff et al. 2023, arXiv 2305.16264, eq. 5).

    >>> round(worth(4), 2), round(worth(1000), 1)
    (3.73, 16.4)
    """
    star = scaling_laws.REPEATED_DATA
    return 1 + star * (1 - math.exp(-(repeats - 1) / star)) if repeats > 1 else repeats


def repeats(facts: Facts) -> Iterator[Warning]:
    """The same text over and over."""
    length = facts.lengths
    if length.repeats_per_token is None or length.repeats_per_token <= GOOD_REPEATS or length.tokens is None:
        return
    steps = max(1, GOOD_REPEATS * length.tokens // length.tokens_per_step)
    assert length.tokens_seen is not None
    as_new = worth(length.repeats_per_token)
    yield Warning(
        "warning" if length.repeats_per_token > USELESS_REPEATS else "note",
        "the same text is repeated more often than it teaches",
        f"each token is seen {length.repeats_per_token:,.4g} times; that teaches like {as_new:.3g} passes over new "
        "text: 4 are as good as new, and after 16 little is gained (Muennighoff et al. 2023, arXiv 2305.16264)",
        f"train.max_iters={steps} (4 times), {units.count(length.tokens_seen / GOOD_REPEATS)} tokens of text for this "
        "length, or train.patience=3, which stops when the held-out loss no longer falls",
        lost=1 - as_new / length.repeats_per_token,
    )


def tokens_per_parameter(facts: Facts) -> Iterator[Warning]:
    """Too little text, or too short a training, for so large a model."""
    length, total = facts.lengths, facts.parameters.total
    if length.tokens is None or not length.tokens_seen or facts.config.train.init_from is not None:
        return
    if length.tokens < total:
        yield Warning(
            "warning",
            "the model has room to learn the text by heart",
            f"{units.count(total)} parameters for {units.count(length.tokens)} token{'s' * (length.tokens != 1)} of "
            "text, "
            f"{length.tokens / total:.2g} tokens a parameter; about {CHINCHILLA} are usual "
            "(Hoffmann et al. 2022, arXiv 2203.15556)",
            f"a smaller model (n_layer, n_embd), dropout, or more text: {units.count(CHINCHILLA * total)} tokens for "
            "this one",
            lost=1 - length.tokens / total,
        )
    elif length.tokens_seen < CHINCHILLA / 4 * total:
        best = math.sqrt(3 * facts.flops.forward_per_token * length.tokens_seen / (6 * CHINCHILLA))
        yield Warning(
            "note",
            "the model is large for so short a training",
            f"{length.tokens_seen / total:.2g} tokens a parameter; about {CHINCHILLA} give the lowest loss for the "
            "same arithmetic (Hoffmann et al. 2022, arXiv 2203.15556)",
            f"about {units.count(best)} parameters, or {units.count(CHINCHILLA * total)} tokens of training",
        )


def no_dropout(facts: Facts) -> Iterator[Warning]:
    """Repeated text without dropout is learnt by heart sooner."""
    times, lora = facts.lengths.repeats_per_token or 0, facts.config.train.lora
    if times <= GOOD_REPEATS or facts.architecture.dropout or lora.rank is not None:
        return
    yield Warning(
        "note",
        "text that is repeated, and no dropout",
        f"each token is seen {times:,.4g} times with model.dropout 0; with repeated text dropout is "
        "what helps most against learning it by heart (Xue et al. 2023, arXiv 2305.13230)",
        "model.dropout=0.1",
    )


def learning_rate(facts: Facts) -> Iterator[Warning]:
    """Far from what GPTs of the size are trained with: ``0.003239 - 0.0001395 ln N`` for Adam, N without embeddings
    (Kaplan et al. 2020, arXiv 2001.08361, appendix D.6)."""
    train, size = facts.config.train, facts.parameters.non_embedding
    of_its_own = train.parametrization == "mup" or train.lora.rank is not None or train.init_from is not None
    if train.optimizer not in ("adamw", "adamw8bit") or of_its_own or size > 1e10:
        return
    usual = 0.003239 - 0.0001395 * math.log(size)
    times = train.learning_rate / usual
    if SLOW_RATE <= times <= FAR_RATE:
        return
    high = times > 1
    yield Warning(
        "warning" if times > 2 * FAR_RATE else "note",
        f"the learning rate is far {'above' if high else 'below'} what is usual for the size",
        f"{train.learning_rate:g} is {times:.3g} times the {usual:.1e} of a GPT with {units.count(size)} parameters "
        "beside its embeddings (Kaplan et al. 2020, arXiv 2001.08361, appendix D.6): "
        + ("the loss may jump and stay high" if high else "it will learn slowly"),
        f"train.learning_rate={usual:.1e}",
        lost=0.9 if high else 0.0,
    )


def batch(facts: Facts) -> Iterator[Warning]:
    """A batch so large that most of its sequences say the same.

    For the same loss a batch of B tokens takes ``1 + B / critical`` times the tokens that a small one takes, and
    ``2.1e8 / loss^4.76`` tokens are critical (Kaplan et al. 2020, arXiv 2001.08361, section 5.1). The lowest loss that
    can be expected gives the largest critical batch; far above 4 nats the laws of scaling were never fitted.
    """
    length, train = facts.lengths, facts.config.train
    if not length.tokens_seen or train.init_from is not None:
        return
    loss = min(4.0, scaling_laws.loss(facts.parameters.total, length.tokens_seen, length.tokens).low)
    critical = 2.1e8 / loss**4.76
    times = length.tokens_per_step / critical
    if times < FAR_BATCH:
        return
    fewer = max(1, round(critical / facts.config.model.block_size))
    yield Warning(
        "warning",
        "the batch is far larger than what a step can learn from",
        f"{length.tokens_per_step:,} tokens a step; at a loss of {loss:.2g} nats about {units.count(critical)} are "
        f"critical (Kaplan et al. 2020, arXiv 2001.08361, section 5.1): "
        f"{times / (1 + times):.0%} of the tokens teach nothing new",
        f"train.batch_size={fewer} with more steps",
        lost=times / (1 + times),
    )


def fine_tuning_rate(facts: Facts) -> Iterator[Warning]:
    """Weights that are trained already, moved as far at each step as fresh ones."""
    train, model = facts.config.train, facts.config.model
    fresh = model.fresh or train.lora.rank is not None
    if fresh or train.optimizer not in ("adamw", "adamw8bit") or train.learning_rate <= FAR_FROM_TRAINED:
        return
    yield Warning(
        "warning",
        "the learning rate is high for weights that are trained already",
        f"{train.learning_rate:g} with AdamW may undo what {model.source} knows; 5e-5 is what Hugging Face's Trainer "
        "takes, and T5 is fine-tuned with 1e-4 to 3e-4 (transformers' page on T5)",
        f"train.learning_rate={USUAL_FOR_TRAINED:g}",
        lost=0.5,
    )


OF_EXAMPLES = (fine_tuning_rate,)
LOOKS = (repeats, tokens_per_parameter, no_dropout, learning_rate, batch)
