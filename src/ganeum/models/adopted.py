"""A model of Hugging Face's behind the door that a GPT of ours has: hidden states, and a head.

The head of the model becomes a way through while hidden states are asked for, so that whatever the model does before it
(norms, T5's scaling by 1/√d_model) and whatever factor it applies behind it (Cohere's, Granite's) is in them. A bias
and a cap behind it are the loss's to apply; of a model that does more to its logits ``hidden`` gives these themselves.

Shapes: B = rows, S = source tokens in each, T = target tokens (of a causal model all tokens), C = width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganeum.errors import ConfigError
from ganeum.models import adapters, kernels_of_theirs, tying
from ganeum.models.attention_of_theirs import FUSED, configs, with_bias, without_masks
from ganeum.models.network import Network, Output
from ganeum.models.output_of_theirs import OutputOfTheirs
from ganeum.models.quiet import quiet
from ganeum.models.regions import Regions

CLOSE = 1e-3  # of the largest logit: how far fp32's rounding may take the two ways apart
MAKE_THEIR_MASKS = ("doge", "t5gemma", "t5gemma2")  # though they claim to take any attention
NOT_READ = (TypeError, ValueError, RuntimeError, IndexError, AttributeError)  # of whatever a model makes of tokens
SAME = 1e-4  # of the largest hidden state: the same of a row that is cut otherwise
WINDOW, CHUNK = "sliding_window", "attention_chunk_size"  # in a config, of layers that see less than all before them


class Adopted(Network):
    """``model`` of transformers as a :class:`Network`; ``encoder_decoder``: whether pairs are its way to learn."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        kernels_of_theirs.put_in(model)
        with_bias(model)
        self.model, self.config = model, model.config
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        self._own_masks = self.encoder_decoder and _makes_its_masks(model)
        self._near_sighted = _has(model, WINDOW, CHUNK)
        self._unmasked = [] if self._near_sighted else _attends_without_masks(model)
        self._output = OutputOfTheirs(model, self._a_few_logits)
        # Past nn.Module's own bookkeeping: both are parts of `model` already, and have their names there.
        vars(self)["head"], vars(self)["blocks"] = self._output.head, _layers(model)
        self.vocab_size = self._a_few_logits().size(-1) if self._output.whole else self.head.weight.size(0)

    def output(self) -> Output:
        return self._output()

    def hidden(self, **inputs: Tensor) -> Tensor:
        """What :mod:`ganeum.data.batch` calls ``inputs`` → (B, T, C).

        Pairs: ``source_tokens`` (B, S), ``source_mask`` (B, S) true where there is one, ``target_tokens`` (B, T), what
        the decoder reads. Texts: ``tokens`` (B, T). In packed rows ``…segments``, of equal shapes, number the examples
        from 1 on, 0 is padding; ``positions`` begin again with each.
        """
        with self._output.set_aside(), without_masks(self._unmasked):
            hidden: Tensor = self._run(inputs).logits
        return hidden

    def compiled(self) -> Callable[..., Tensor]:
        """``hidden`` with its blocks compiled."""
        regions = Regions(self.blocks)

        def hidden(**inputs: Tensor) -> Tensor:
            with regions.in_place():
                return self.hidden(**inputs)

        return hidden

    def _run(self, inputs: Mapping[str, Tensor]) -> Any:
        if not self.encoder_decoder:
            return self.model(**self._causal(inputs), use_cache=False)
        mask, source = inputs.get("source_mask"), inputs.get("source_segments")
        if self._own_masks:
            if source is not None:
                raise ValueError("it takes no masks but of whole rows")
            return self.model(
                input_ids=inputs["source_tokens"],
                attention_mask=None if mask is None else mask.long(),
                decoder_input_ids=inputs["target_tokens"],
                decoder_attention_mask=torch.ones_like(inputs["target_tokens"]),  # else some take its start for padding
                use_cache=False,
            )
        sees, crosses, causes = None, None, None
        if source is not None:
            target = inputs["target_segments"]
            sees, crosses, causes = _same(source, source), _same(target, source), _causal(target)
        elif mask is not None:  # with its four dimensions it is taken as it is: nobody looks whether it is full
            sees = crosses = mask[:, None, None, :]
        encoded = self.model.get_encoder()(input_ids=inputs["source_tokens"], attention_mask=self._mask(sees))
        return self.model(
            encoder_outputs=encoded,
            attention_mask=self._mask(crosses),
            decoder_input_ids=inputs["target_tokens"],
            decoder_attention_mask=self._mask(causes),
            use_cache=False,
        )

    def _causal(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arguments of a decoder: padding lies at the right, where no token that counts sees it."""
        found: dict[str, Any] = {"input_ids": inputs["tokens"]}
        if (segments := inputs.get("segments")) is not None:
            found["position_ids"] = inputs["positions"]
            if not self._near_sighted:
                found["attention_mask"] = self._mask(_causal(segments))
            # else transformers finds the examples by their positions, and lets each layer see as far as it does
        return found

    def _mask(self, seen: Tensor | None) -> Tensor | None:
        """(B, 1, ·, ·) true where a token sees another, in the form that the model's attention takes."""
        if seen is None or self.config._attn_implementation in FUSED:
            return seen
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)  # added to the scores

    def file_state(self) -> dict[str, Tensor]:
        """Name → tensor under transformers' names; what is tied is there once, adapters under their layers' names."""
        once = {name for name, _ in (*self.model.named_parameters(), *self.model.named_buffers())}
        return adapters.state({name: t for name, t in self.model.state_dict().items() if name in once})

    def save_shape(self, directory: Path) -> None:
        """config.json and generation_config.json, all that is needed to build it again and load weights."""
        with quiet():
            self.config.save_pretrained(directory)
            tying.note(self.model, directory)
            if self.model.can_generate():
                self.model.generation_config.save_pretrained(directory)

    def matrices_across(self) -> set[str]:
        """Names of the weights that lie as (in, out)."""
        return {f"{name}.weight" for name, module in self.model.named_modules() if type(module).__name__ == "Conv1D"}

    @torch.no_grad()
    def _a_few_logits(self) -> Tensor:
        """(1, 8, V) of the model's own, nothing dropped."""
        training = self.training
        self.eval()
        try:
            logits: Tensor = self._run({n: t.to(self.model.device) for n, t in self.one_sequence().items()}).logits
        except NOT_READ as error:
            raise _unreadable(self, error) from error
        self.train(training)
        return logits

    def one_sequence(self) -> dict[str, Tensor]:
        tokens = torch.zeros(1, 8, dtype=torch.int64)
        return {"source_tokens": tokens, "target_tokens": tokens} if self.encoder_decoder else {"tokens": tokens}


@torch.no_grad()
def check_logits(network: Adopted, where: str) -> None:
    """Compares the model's own logits of a few tokens with what a step makes of its hidden states, and looks whether
    another token behind them, or none, changes them.

    Raises:
        ConfigError: they differ, or the model sees what it is to learn, or reads no rows of tokens in training.
    """
    network.eval()
    said = [getattr(network.config, f"{kind}_token_id", None) for kind in ("pad", "bos", "eos")]
    special = {token for some in said for token in (some if isinstance(some, list) else [some])}
    plain = [token for token in range(3, network.vocab_size) if token not in special][:8]
    tokens = torch.tensor([plain], device=network.model.device)
    *other, reads = ("source_tokens", "target_tokens") if network.encoder_decoder else ("tokens",)
    inputs = dict.fromkeys((*other, reads), tokens)
    own = network._run(inputs).logits.float()
    hidden = network.hidden(**inputs)
    ours = network.output().logits(hidden).float()
    for later in (torch.cat((tokens[:, :-1], tokens[:, :1]), dim=1), tokens[:, :5]):
        seen = network.hidden(**{**inputs, reads: later})[:, :-1]
        if not torch.allclose(hidden[:, : seen.size(1)], seen, rtol=0.0, atol=SAME * hidden.abs().max().item()):
            raise ConfigError(
                f"a {network.config.model_type} as it is configured sees the tokens that it is to predict",
                where=where,
                why="its attention is not causal, or hangs on how long a row is",
                suggestion="a model that writes text; of BERT's kin one whose config.json says is_decoder: true",
            )
    if not torch.allclose(own, ours, rtol=0.0, atol=CLOSE * own.abs().max().item()):
        raise ConfigError(
            f"the logits of a {network.config.model_type} are not its hidden states times its output layer",
            where=where,
            why="something is applied to the logits, and the loss would not know of it",
        )
    network.train()
    try:
        with torch.random.fork_rng(devices=[]):  # dropout
            network.hidden(**{name: t[:, :5] for name, t in inputs.items()})
    except NOT_READ as error:
        raise _unreadable(network, error) from error
    finally:
        network.eval()


def _unreadable(network: Adopted, error: Exception) -> ConfigError:
    return ConfigError(
        f"a {network.config.model_type} does not read rows of tokens alone",
        where="model.source",
        why=(str(error).strip().splitlines() or [type(error).__name__])[0],
    )


@torch.no_grad()
def check_packing(network: Adopted) -> None:
    """Compares two examples in one row with the same two in rows of their own.

    Raises:
        ConfigError: they come out otherwise, or the model cannot be told where an example begins.
    """
    network.eval()
    device, length = network.model.device, 4
    tokens = torch.arange(2, 2 + 2 * length, device=device) % network.vocab_size
    number = torch.tensor([1, 2], device=device, dtype=torch.int32).repeat_interleave(length)[None]
    names: tuple[str, ...]
    if network.encoder_decoder:
        names, more = ("source_tokens", "target_tokens"), {"source_segments": number, "target_segments": number}
    else:
        names, more = (
            ("tokens",),
            {"segments": number, "positions": torch.arange(length, device=device).repeat(2)[None]},
        )
    alone = network.hidden(**dict.fromkeys(names, tokens.view(2, length))).flatten(0, 1)
    why = "it counts positions through the whole row, or sees more of it than one example"
    try:
        together = network.hidden(**dict.fromkeys(names, tokens[None]), **more).flatten(0, 1)
    except NOT_READ as error:
        together, why = torch.full_like(alone, torch.nan), f"it cannot be told where each begins: {error}"
    same = torch.allclose(alone, together, rtol=0.0, atol=SAME * alone.abs().max().item())
    if _has(network.model, CHUNK):  # of thousands of tokens: it would not show here
        same, why = False, f"its layers see no further than a part of the row, counted from its start ({CHUNK})"
    if not same:
        raise ConfigError(
            f"a {network.config.model_type} reads several examples in a row otherwise than each alone",
            where="data.batching: packed",
            why=why,
            suggestion="data.batching: buckets",
        )


def _makes_its_masks(model: Any) -> bool:
    """Whether it needs the one mask of whole rows that users give, to make its own of it."""
    takes_any = getattr(model, "_supports_attention_backend", False) or getattr(model, "_supports_sdpa", False)
    return not takes_any or model.config.model_type in MAKE_THEIR_MASKS


def _attends_without_masks(model: Any) -> list[Any]:
    """The configs of a causal model that needs no masks but those it is given, if its layers all see all that came
    before; others have what :mod:`ganeum.models.attention_of_theirs` spares them at the price of a wait on a GPU."""
    config = model.config
    backed = getattr(model, "_supports_attention_backend", False) and config._attn_implementation == "sdpa"
    backed = backed and not _makes_its_masks(model)
    return [] if config.is_encoder_decoder or not backed else configs(model)


def _has(model: Any, *names: str) -> bool:
    """Whether a config says one of them, the model's or a part's: that of the text where pictures are read, too."""
    return any(getattr(config, name, None) is not None for config in configs(model) for name in names)


def _layers(model: Any) -> list[nn.Module]:
    """What transformers would compute again: the blocks of encoder and decoder, none inside another."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            found.append(module)
            inside.update(module.modules())
    return found


def _same(rows: Tensor, columns: Tensor) -> Tensor:
    """Segments (B, Q), (B, K) → (B, 1, Q, K): of one example. Padding sees padding, since a softmax over nothing is no
    number."""
    return (rows[:, :, None] == columns[:, None, :])[:, None]


def _causal(segments: Tensor) -> Tensor:
    """(B, T) → (B, 1, T, T): of one example, and not later."""
    length = segments.size(1)
    return _same(segments, segments) & torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
