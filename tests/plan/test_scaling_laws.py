"""What loss to expect: the published optima, what repeated text is worth, and trainings that no law was fitted to."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import closed_form, scaling_laws
from ganeum.plan.backwards import recipe
from ganeum.plan.scaling_laws import BESIROGLU, HOFFMANN, LAWS, MUENNIGHOFF, effective, extrapolated, loss

GOPHER = 5.76e23  # FLOPs: 280B parameters on 300B tokens, and Chinchilla's 70B on 1.4T


def test_hoffmanns_optimum_for_gophers_budget() -> None:
    """Approach 3 foretells 40 billion parameters for Gopher's arithmetic (Hoffmann et al. 2022, section 3.4)."""
    n_params, tokens = HOFFMANN.optimum(GOPHER)
    assert n_params == pytest.approx(40e9, rel=0.02)
    assert 6 * n_params * tokens == pytest.approx(GOPHER)


def test_the_refit_has_chinchilla_on_its_frontier() -> None:
    """The other fit of the same trainings gives about 70B and 1.4T tokens, as Chinchilla was trained, and a = 0.513
    (Besiroglu et al. 2024, section 4)."""
    n_params, tokens = BESIROGLU.optimum(GOPHER)
    assert n_params == pytest.approx(70e9, rel=0.05)
    assert tokens == pytest.approx(1.4e12, rel=0.06)
    assert BESIROGLU.beta / (BESIROGLU.alpha + BESIROGLU.beta) == pytest.approx(0.5126, abs=1e-4)


def test_muennighoffs_optimum_is_a_fixed_share() -> None:
    """U_N = 0.051 U_D (Muennighoff et al. 2023, appendix A, eq. 17), and E, A, B print as 1.87, 521, 1488."""
    assert MUENNIGHOFF.parameters_for(1e9) == pytest.approx(0.051e9, rel=0.01)
    assert (round(MUENNIGHOFF.E, 2), round(MUENNIGHOFF.A), round(MUENNIGHOFF.B)) == (1.87, 521, 1488)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("flops", [1e18, 1e20, 5.76e23])
def test_the_optimum_is_one(law: scaling_laws.Law, flops: float) -> None:
    """Neither more parameters nor more tokens for the same arithmetic lower the loss."""
    n_params, tokens = law.optimum(flops)
    best = law.loss(n_params, tokens)
    assert best < law.loss(1.1 * n_params, tokens / 1.1)
    assert best < law.loss(n_params / 1.1, 1.1 * tokens)
    assert law.parameters_for(tokens) == pytest.approx(n_params)


def test_four_times_is_almost_as_good_as_new() -> None:
    """Four epochs cost next to nothing, and by forty nothing more is learnt (Muennighoff et al. 2023, section 6)."""
    unique = 10e9
    n_params = MUENNIGHOFF.parameters_for(unique)

    def reached(times: float) -> float:
        return MUENNIGHOFF.loss(*effective(MUENNIGHOFF, n_params, times * unique, unique))

    new = MUENNIGHOFF.loss(n_params, 4 * unique)
    assert reached(4) - new < 0.01 * new
    gained_at_first, gained_late = reached(1) - reached(4), reached(40) - reached(80)
    assert gained_late < 0.1 * gained_at_first


def test_repeating_is_worth_sixteen_times_the_text_at_most() -> None:
    """However often U tokens are seen, they are worth no more than 16.39 U new ones (R_D* = 15.39, section 3.1)."""
    _, tokens = effective(MUENNIGHOFF, 1e6, 1e15, 1e9)
    assert tokens == pytest.approx(16.39e9, rel=1e-3)
    _, half = effective(MUENNIGHOFF, 1e6, (1 + 15.387756) * 1e9, 1e9)
    assert half - 1e9 == pytest.approx((1 - 1 / math.e) * 15.387756e9)


def test_excess_parameters_are_worth_less() -> None:
    """A model far beyond what its text is the optimum for counts as at most 6.31 times that (R_N* = 5.31)."""
    n_params, _ = effective(MUENNIGHOFF, 1e15, 1e9, 1e9)
    assert n_params == pytest.approx(6.31 * MUENNIGHOFF.parameters_for(1e9), rel=1e-3)


def test_enough_text_changes_nothing_at_the_optimum() -> None:
    """Where each token is seen once and the model is no larger than its optimum, both ways of asking agree."""
    assert loss(50e6, 2e9, 2e9) == pytest.approx(loss(50e6, 2e9))
    assert loss(50e6, 2e9, 1e12) == pytest.approx(loss(50e6, 2e9))


# Trainings that none of the laws was fitted to: parameters, tokens, different tokens, loss.
WIDE_OF_32K = {46_006_272: 768, 109_051_904: 1024, 368_050_176: 1536, 872_415_232: 2048}
TRAININGS = [
    # llm.c's GPT-2 on FineWeb, GPT-2's vocabulary (KellerJordan/modded-nanogpt, README)
    pytest.param(124_439_808, 10e9, None, 3.2847, id="llm.c, 124M on 10B"),
    # 600,000 steps of 491,520 tokens on OpenWebText's 9.04B (karpathy/nanoGPT, README)
    pytest.param(124_439_808, 294.9e9, 9.04e9, 2.85, id="nanoGPT, 124M on 295B"),
    # L. Lingle, Scaling Laws for Optimal LR and Batch Size, parts II and III: the best of each sweep; 32k tokens
    *(
        pytest.param(
            blocks + 32_000 * WIDE_OF_32K[blocks], tokens, None, measured, id=f"Lingle, {blocks:,} on {tokens:,}"
        )
        for blocks, tokens, measured in (
            (46_006_272, 1_023_934_464, 3.384921),
            (109_051_904, 1_023_934_464, 3.256896),
            (368_050_176, 1_023_934_464, 3.123393),
            (872_415_232, 1_023_934_464, 3.058425),
            (46_006_272, 2_156_134_400, 3.270941),
            (46_006_272, 4_312_530_944, 3.192060),
        )
    ),
]


@pytest.mark.parametrize(("n_params", "tokens", "unique", "measured"), TRAININGS)
def test_trainings_of_others_lie_within_the_range(
    n_params: int, tokens: float, unique: float | None, measured: float
) -> None:
    """What others measured on other web text, with other vocabularies, lies between low and high."""
    low, expected, high = loss(n_params, tokens, unique)
    assert low < measured < high
    assert abs(measured - expected) < 0.4
    assert not extrapolated(n_params, tokens, unique)


def test_short_trainings_are_known_to_be_out_of_reach() -> None:
    """After 128M tokens 46M parameters had 3.88 (Lingle, part III); every law says 0.7 more, and that is said."""
    n_params = 46_006_272 + 32_000 * 768
    assert min(law.loss(n_params, 127_991_808) for law in LAWS) > 3.88 + 0.7
    assert extrapolated(n_params, 127_991_808) == "they were fitted from 1.0B tokens on, this is 128.0M"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ((5e6, 2e9), "they were fitted from 40.0M parameters on, this is 5.0M"),
        ((70e9, 2e9), "they were fitted up to 16.0B parameters, this is 70.0B"),
        ((1e9, 15e12), "they were fitted up to 500.0B tokens, this is 15.0T"),
        ((1e8, 5e9, 1e8), "each token is seen 50 times, and beyond 40 times repeating adds nothing"),
        ((1e8, 2e9, None, 65), "they are of vocabularies of 32,000 and 50,000, this one has 65"),
        ((1e8, 2e9, None, 32_000), ""),
        ((1e8, 2e9), ""),
    ],
)
def test_what_is_extrapolated(case: tuple[Any, ...], said: str) -> None:
    """Outside of where the laws were fitted the reason is said."""
    assert extrapolated(*case) == said


def test_a_plan_foretells_a_loss_only_where_the_laws_can() -> None:
    """GPT-2 124M on three billion tokens: a loss. On less than was fitted, from other weights, on bytes: none."""
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "vocab_size": 50_257}
    device = Device("a card", "cuda", 80.0, 79.0, {"bf16": 3e14}, capability=(8, 0))

    def told(tokens: float, vocab_size: int = 50_257, init_from: str | None = None) -> Any:
        train = {"tokens": tokens, "batch_size": 64, "init_from": init_from}
        config = Config.model_validate({"model": shape | {"vocab_size": vocab_size}, "train": train})
        return closed_form.plan(config, device=device).get("loss")

    assert set(told(3e9)) == {"expected", "low", "high", "law"}
    assert told(3e9)["low"] < told(3e9)["expected"] < told(3e9)["high"]
    assert told(5e8) is None
    assert told(3e9, vocab_size=257) is None
    assert told(3e9, init_from="another_run") is None


# Lingle, part III: the blocks' parameters, tokens, the best batch (of powers of two) and rate (of powers of √2).
SWEEPS = [
    (46_006_272, 127_991_808, 32_768, 0.001953),
    (109_051_904, 127_991_808, 32_768, 0.000977),
    (46_006_272, 511_967_232, 65_536, 0.002762),
    (109_051_904, 511_967_232, 131_072, 0.001953),
    (46_006_272, 1_023_934_464, 131_072, 0.003906),
    (109_051_904, 1_023_934_464, 131_072, 0.001953),
    (368_050_176, 1_023_934_464, 131_072, 0.000977),
    (872_415_232, 1_023_934_464, 131_072, 0.000691),
]


@pytest.mark.parametrize(("n_params", "tokens", "batch", "rate"), SWEEPS)
def test_the_recipe_is_what_another_sweep_found(n_params: int, tokens: int, batch: int, rate: float) -> None:
    """Rates lie within a factor of 1.6 of the best that somebody else found, batches within 2.5, on a coarse grid."""
    assert 1 / 2.5 < recipe.batch_tokens(tokens) / batch < 2.5
    assert 1 / 1.6 < recipe.learning_rate(n_params, tokens) / rate < 1.6


def test_the_recipe_at_its_published_size() -> None:
    """One billion parameters on 100 billion tokens, by hand: 10^(log 1.79 − 9 · 0.713 + 11 · 0.307) = 10^−2.787, and
    10^(log 0.58 + 11 · 0.571) = 10^6.044."""
    assert recipe.learning_rate(1e9, 1e11) == pytest.approx(1.63e-3, rel=2e-3)
    assert recipe.batch_tokens(1e11) == pytest.approx(1.108e6, rel=2e-3)
