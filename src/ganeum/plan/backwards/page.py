"""The answer of a backwards plan in words: why each key has its value, what heads the config, the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganeum import units
from ganeum.config import sizes
from ganeum.config.keys import keys, value_of
from ganeum.plan import scaling_laws

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ganeum.plan.backwards.answer import Answer, Candidate


def reasons(answer: Answer) -> dict[str, str]:
    """Dotted key → why it has its value, for each that the search set."""
    asked, best = answer.question, answer.best
    model = best.config.model
    return {
        "name": "the run's directory under results/",
        "model.style": "RMSNorm and SwiGLU, as the models had that batch and learning rate were fitted on",
        "model.n_layer": f"n_embd / n_layer is {model.n_embd / model.n_layer:.0f}: of usual shapes the fastest; it "
        "hardly moves the loss (Kaplan et al. 2020, section 3.1)",
        "model.n_head": f"heads of {sizes.head_dim(model)}",
        "model.n_embd": _why_size(answer),
        "model.block_size": "as asked" if asked.context != 1024 else "what such models are usually trained with",
        "model.vocab_size": "the data's must be the same",
        "model.dropout": f"each token is seen {_repeats(best):.1f} times; the trainings that "
        "repeated text was measured on had as much",
        "train.batch_size": f"{best.tokens_per_step:,} tokens: 0.58 · D^0.571, to a power of two (Li et al. 2025)",
        "train.tokens": _why_tokens(answer),
        "train.learning_rate": "1.79 · N^-0.713 · D^0.307 (Li et al. 2025), N without embeddings, at most 4e-3",
        "train.min_learning_rate": "where their schedules ended",
        "train.eval_tokens": "a short training: few, so that they take little of it",
    }


def _why_size(answer: Answer) -> str:
    asked, best = answer.question, answer.best
    if asked.parameters is not None:
        return f"{units.count(best.n_params)} parameters: the nearest to the {units.count(asked.parameters)} asked for"
    if asked.wanted is not None and best.n_params < asked.wanted / 1.25:
        return f"{units.count(best.n_params)} parameters, the largest that fit; these tokens are the optimum for " + (
            units.count(asked.wanted)
        )
    if asked.tokens is not None:
        return f"{units.count(best.n_params)} parameters, which these tokens are the optimum for"
    return f"{units.count(best.n_params)} parameters: the lowest loss after {spoken(asked.hours or 0)}"


def _why_tokens(answer: Answer) -> str:
    asked, best = answer.question, answer.best
    pace = f"{spoken(best.hours)} at {best.planned.step.tokens_per_second:,.0f} tokens/s"
    if best.unique_tokens and scaling_laws.repeated_too_often(best.tokens, best.unique_tokens):
        enough, most = units.count(scaling_laws.REPEATS * best.unique_tokens), scaling_laws.REPEATS
        return f"{pace}; but {enough} would do: beyond {most} times each, nothing is gained"
    if asked.enough is not None and best.tokens + best.tokens_per_step > asked.enough:
        less = f", of the {spoken(asked.hours)} that there are" if asked.hours is not None else ""
        return f"each {scaling_laws.REPEATS} times, beyond which nothing is gained: {pace}{less}"
    if asked.hours is not None:
        return f"what {pace} hold; train.hours={asked.hours:.4g} instead lets the machine's own speed decide"
    return f"as asked: {pace}" if asked.tokens is not None else f"the optimum for this size: {pace}"


def _repeats(candidate: Candidate) -> float:
    return candidate.tokens / candidate.unique_tokens if candidate.unique_tokens else 1.0


def heading(answer: Answer) -> str:
    """What stands above the config."""
    asked, best = answer.question, answer.best
    lines = [
        f"{units.count(best.n_params)} parameters on {units.count(best.tokens)} tokens, planned for "
        f"{asked.device.name}: {units.duration(best.hours * 3600)}",
        f"loss: {expected(best)}",
    ]
    if best.config.data.directory == type(best.config.data)().directory:
        lines.append("data.directory: say where your tokens are")
    return "\n".join(lines)


def expected(candidate: Candidate) -> str:
    """The loss, or why none is given."""
    if why := candidate.extrapolated:
        return f"the laws cannot say: {why}"
    loss = candidate.loss
    return f"about {loss.expected:.2f} ({loss.low:.2f} to {loss.high:.2f}) nats a token of web text"


def spoken(hours: float) -> str:
    """Hours as one says them: ``8 h``, ``1.5 h``, ``5 min``."""
    return f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.3g} min"


def page(answer: Answer) -> RenderableType:
    """For ``rich.console.Console.print``; fits 80 columns."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    asked, best = answer.question, answer.best
    wanted = spoken(asked.hours) if asked.hours is not None else "as long as it takes"
    title = Text.assemble(
        (f"{units.count(best.n_params)} parameters", "bold"), f"  for {wanted} on {asked.device.name}"
    )
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="bold", no_wrap=True)
    figures.add_column(ratio=1)
    for name, text in _rows(answer):
        figures.add_row(name, text)
    parts: list[Any] = [Rule(title, align="left", style="dim"), Padding(figures, (1, 0, 1, 2)), _neighbours(answer)]
    parts += [Text("\nWhy", style="bold"), Padding(_why(answer), (0, 0, 0, 2))]
    return Group(*parts)


def _rows(answer: Answer) -> list[tuple[str, str]]:
    best = answer.best
    model, train = best.config.model, best.config.train
    micro = best.chosen("train.micro_batch_size")
    repeats = f", each of {units.count(best.unique_tokens)} {_repeats(best):.1f} times" if best.unique_tokens else ""
    step = best.planned.step
    return [
        (
            "Model",
            f"{model.n_layer} layers × {model.n_embd}, {model.n_head} heads, context {model.block_size:,}, "
            f"vocabulary {model.vocab_size:,}",
        ),
        (
            "Tokens",
            f"{units.count(best.tokens)}{repeats}; {units.three(best.tokens / best.n_params)} for each parameter",
        ),
        (
            "Batch",
            f"{units.things(train.batch_size, 'sequence')} ({best.tokens_per_step:,} tokens) = {micro} at once × "
            f"{train.batch_size // micro}; {best.steps:,} steps",
        ),
        ("Rate", f"{train.learning_rate:g}, down to {train.min_learning_rate:g}"),
        (
            "Time",
            f"{units.duration(best.hours * 3600)} at {step.tokens_per_second:,.0f} tokens/s; between "
            f"{units.duration(best.steps * step.low)} and {units.duration(best.steps * step.high)} "
            f"({step.source})",
        ),
        (
            "Memory",
            f"{units.gib(best.planned.needed.total)} of {answer.question.device.usable_gib:.1f} GiB usable; at most "
            f"{units.gib(best.planned.needed.most)}",
        ),
        ("Loss", expected(best)),
    ]


def _neighbours(answer: Answer) -> Table:
    """The best model beside one of about half and one of about twice its size."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("")
    loss = "loss beside it" if answer.best.extrapolated else "loss"
    for name in ("parameters", "layers × width", "tokens", "time", loss):
        table.add_column(name, justify="right")
    for name, one in (("smaller", answer.smaller), ("best", answer.best), ("larger", answer.larger)):
        if one is not None:
            model, worse = one.config.model, one.loss.expected - answer.best.loss.expected
            table.add_row(
                name,
                units.count(one.n_params),
                f"{model.n_layer} × {model.n_embd}",
                units.count(one.tokens),
                spoken(one.hours),
                f"{worse:+.3f}" if one is not answer.best else "" if one.extrapolated else f"{one.loss.expected:.3f}",
                style="bold" if one is answer.best else None,
            )
    return table


def _why(answer: Answer) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(ratio=1, style="dim")
    for key, reason in answer.reasons.items():
        value = value_of(answer.best.config, key)
        if key != "name" and value != keys()[key].default:
            table.add_row(_last(key), f"{value:,.0f}" if key == "train.tokens" else str(value), reason)
    for choice in answer.best.planned.choices:
        table.add_row(_last(choice["key"]), str(choice["value"]), choice["reason"])
    return table


def _last(key: str) -> str:
    return key.rpartition(".")[2]
