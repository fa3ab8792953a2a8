"""Keys of two configs that differ, and what each could do to the time: in words, and by two plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.doctor.compare.side import section
from ganeum.doctor.compare.stretch import number
from ganeum.errors import GaneumError
from ganeum.hardware.device import Device
from ganeum.plan.question.subject import Run

COMPUTING = ("forward", "backward")
EVERYTHING = ("forward", "backward", "optimizer")
LEAST = 0.01  # of a step: by plans, a key that does less does nothing

# Key, or the beginning of some → the parts of the time that it acts on, its cause, what it could do.
EFFECTS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "train.precision": (EVERYTHING, "fp32", "the format of all products"),
    "train.compile": (EVERYTHING, "not_compiled", "fewer, larger kernels"),
    "train.activation_checkpointing": (("backward",), "checkpointing_for_nothing", "activations are computed twice"),
    "train.micro_batch_size": (COMPUTING, "small_micro_batch", "how much the device has to do at once"),
    "train.batch_size": (("optimizer",), "frequent_update", "how many tokens share one update"),
    "train.batch_tokens": (("optimizer",), "frequent_update", "how many tokens share one update"),
    "train.optimizer": (("optimizer",), "slow_optimizer", "what an update computes"),
    "train.optimizer_offload": (("optimizer",), "slow_optimizer", "the state crosses the link in every update"),
    "train.zero": (EVERYTHING, "data_parallel", "machinery for several devices"),
    "train.weights": (EVERYTHING, "pure_half", "the format of the weights"),
    "train.loss_chunk": (COMPUTING, "logits", "how the loss is cut into pieces"),
    "train.lora": (EVERYTHING, "more_work", "which weights are trained"),
    "train.expandable_segments": (COMPUTING, "fragmentation", "how the allocator takes memory"),
    "model.": (EVERYTHING, "more_work", "another model: other work for a token"),
    "data.max_length": (COMPUTING, "padding", "the length of a row"),
    "data.max_target_length": (COMPUTING, "padding", "the length of a row"),
    "data.batching": (COMPUTING, "padding", "how rows become batches"),
    "data.": (("data",), "loader", "other data, or read in another way"),
    "train.eval_": (("outside",), "too_often", "how much is evaluated, and how often"),
    "train.checkpoint_interval": (("outside",), "too_often", "how often a checkpoint is written"),
    "sample.": (("outside",), "too_often", "how much is generated, and how often"),
    "log.": (("other", "outside"), "too_often", "what is logged, and where to"),
    "device": (EVERYTHING, "on_cpu", "another device"),
}
# What is learnt of a token: keys that begin so.
LEARNING: tuple[str, ...] = (
    "model.",
    "data.",
    "train.optimizer",
    "train.batch_size",
    "train.batch_tokens",
    "train.learning_rate",
    "train.min_learning_rate",
    "train.schedule",
    "train.warmup_iters",
    "train.decay_share",
    "train.weight_decay",
    "train.beta",
    "train.momentum",
    "train.grad_clip",
    "train.parametrization",
    "train.precision",
    "train.weights",
    "train.init_from",
    "train.lora",
)
SILENT = ("name", "seed", "train.max_iters", "train.epochs", "train.tokens", "train.hours", "train.keep_last")


PLACES = ("data.directory", "data.train", "data.val")  # the same tokens may lie elsewhere
NOT_OF_THE_MODEL = ("source", "length", "source_length")  # of its plan: where it lies, how data become rows
# Keys of one kind of run only: a GPT of ours on a corpus, or a model of `model.source` on examples.
OF_A_GPT = ("data.directory", "data.order", "data.stride")
OF_BOTH = ("model.source", "model.dropout", "data.max_examples")
UNLIKE = ("model.dropout",)  # null means something else in the one kind and in the other


class Same(NamedTuple):
    """What is the same whatever the configs call it: the shape of the model, the tokens."""

    model: bool
    data: bool

    @classmethod
    def of(cls, run: Mapping[str, Any], baseline: Mapping[str, Any]) -> Same:
        """From their plan.json."""
        models = [
            ({**section(plan, "model"), **dict.fromkeys(NOT_OF_THE_MODEL)}, section(plan, "parameters"))
            if section(plan, "model")
            else None
            for plan in (run, baseline)
        ]
        data = [section(plan, "data").get("identity") for plan in (run, baseline)]
        return cls(None not in models and models[0] == models[1], None not in data and data[0] == data[1])


DIFFERENT = Same(model=False, data=False)


@dataclass(frozen=True)
class Difference:
    """A key with the value of either; ``parts`` of the time that it acts on, empty where on none; ``effect``: what it
    could do, in words; ``planned``: seconds a token with the run's value by those with the baseline's, everything else
    as the run has it; None: no plan says."""

    key: str
    run: Any
    baseline: Any
    parts: tuple[str, ...] = ()
    cause: str | None = None
    effect: str = ""
    planned: float | None = None

    def sentence(self) -> str:
        """``train.precision: fp32, the baseline bf16: the format of all products; by their plans 1.9 times``."""
        told = f"{self.key}: {typed(self.run)}, the baseline {typed(self.baseline)}"
        if self.effect:
            told += f": {self.effect}"
        if self.planned is not None:
            shown = f"takes {self.planned:.2f} times as long" if self.matters else "takes as long"
            told += f"; by the plan a token {shown}"
        return told

    @property
    def matters(self) -> bool:
        """Whether a plan sees a difference; also where there is none."""
        return self.planned is None or abs(self.planned - 1) > LEAST

    @property
    def acts_on_learning(self) -> bool:
        """Whether it changes what is learnt of as many tokens; the same tokens in another place do not."""
        return self.key.startswith(LEARNING) and (bool(self.parts) or self.key not in PLACES)

    def as_dict(self) -> dict[str, Any]:
        """For ``doctor.json``."""
        return {"run": self.run, "baseline": self.baseline, "acts_on": list(self.parts), "planned_times": self.planned}


def differences(
    run: Config, baseline: Config, device: Device | None, tokens: int | None = None, same: Same = DIFFERENT
) -> list[Difference]:
    """Keys that differ and could act on the time; those that do most by their plans first. What is no key of either
    kind of run is none.

    Args:
        device: on which both are planned; None: nothing is planned.
        tokens: of the run's text, where its data is not here.
    """
    ours, theirs = dict(_flat(run.model_dump())), dict(_flat(baseline.model_dump()))
    now = _per_token(run, device, tokens) if device is not None else None
    found = []
    for key in ours:
        if ours[key] == theirs.get(key) or key in SILENT or _is_idle(key, run) or _is_idle(key, baseline):
            continue
        if key in UNLIKE and (run.model.source is None) != (baseline.model.source is None):
            continue
        parts, cause, effect = _effect(key)
        if (key == "model.source" and same.model) or (key in PLACES and same.data):
            parts, cause, effect = (), None, ""
        planned = None
        # What data come to is measured (padding), and not planned.
        if now is not None and set(parts) & set(EVERYTHING) and not key.startswith(("data.", "device", "model.source")):
            assert device is not None
            other = _per_token(run, device, tokens, {key: theirs.get(key)})
            planned = now / other if other else None
        found.append(Difference(key, ours[key], theirs.get(key), parts, cause, effect, planned))
    return sorted(found, key=lambda one: (not one.parts, -abs((one.planned or 1.0) - 1)))


def work(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> float | None:
    """FLOP of a token of the one by the other's, recomputation not counted, from their plan.json; None: not said, or
    the model is the same, of which a token is other work by padding alone."""
    if Same.of(run, baseline).model:
        return None
    ours, theirs = (number(section(plan, "flops").get("per_token")) for plan in (run, baseline))
    return ours / theirs if ours and theirs and min(ours, theirs) > 0 else None


def otherwise(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> Iterator[str]:
    """In words: another model, other text, by their plan.json."""
    ours, theirs = (_named(section(plan, "model")) for plan in (run, baseline))
    if ours and theirs and ours != theirs:
        yield f"of another model ({ours}, the baseline {theirs})"
    texts = [section(section(plan, "data"), "identity").get("train") for plan in (run, baseline)]
    if None not in texts and texts[0] != texts[1]:
        yield "on other text"


def _named(model: Mapping[str, Any]) -> str:
    """``t5 of 4 × 32, vocabulary 128``; empty: not said."""
    kind = model.get("family") or model.get("style")
    sizes = [number(model.get(one) or model.get(other)) for one, other in (("layers", "n_layer"), ("width", "n_embd"))]
    vocabulary = number(model.get("vocab_size"))
    if kind is None or None in sizes or vocabulary is None:
        return ""
    return f"{kind} of {sizes[0]:.0f} × {sizes[1]:.0f}, vocabulary {vocabulary:,.0f}"


def _is_idle(key: str, config: Config) -> bool:
    """Whether such a run has no use for it."""
    if not key.startswith(("model.", "data.")) or key in OF_BOTH:
        return False
    of_a_gpt = key in OF_A_GPT if key.startswith("data.") else key != "model.fresh"
    return of_a_gpt == (config.model.source is not None)


def _effect(key: str) -> tuple[tuple[str, ...], str | None, str]:
    for known, effect in EFFECTS.items():
        if key == known or (known.endswith((".", "_")) and key.startswith(known)) or key.startswith(known + "."):
            return effect
    return (), None, ""


def _per_token(
    config: Config, device: Device, tokens: int | None, settings: Mapping[str, Any] | None = None
) -> float | None:
    """Seconds by the plan."""
    try:
        plan = Run.of(change(config, settings or {}), tokens).plan(device)
        return float(plan["time"]["step_s"] / plan["batch"]["tokens_per_step"])
    except (GaneumError, ValueError, KeyError, TypeError):  # what does not go together, or has no time
        return None


def _flat(part: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def typed(value: Any) -> str:
    """As one would type it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
