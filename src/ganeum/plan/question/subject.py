"""What is planned: one of our configs, or a model that is known by its name; either answers for any device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.config.schema import Train
from ganeum.errors import ConfigError
from ganeum.hardware.device import Device
from ganeum.plan import closed_form, emit
from ganeum.plan.architecture import Architecture, configured, is_known
from ganeum.plan.corpus import size_of
from ganeum.plan.examples import rows_of
from ganeum.plan.execution import Purpose
from ganeum.plan.memory import state
from ganeum.plan.question import named
from ganeum.plan.question.use import Use
from ganeum.record.directory import results_dir

if TYPE_CHECKING:
    from ganeum.plan.trace.exact import Prober

LEARNING_RATES = {"adafactor": 1e-3}  # T5's (Raffel et al. 2020, arXiv 1910.10683, section 3.1.2)
LEARNING_RATE = 5e-5  # what TrainingArguments has unless told otherwise

Plan = dict[str, Any]


class Subject(Protocol):
    """Something that can be planned."""

    def plan(self, device: Device) -> Plan:
        """The plan on ``device``, a dict as in plan.json."""
        ...

    def exact(self, plan: Plan, device: Device, *, explain: bool = False, probe: Prober | None = None) -> Plan:
        """The plan with the memory of its step as traced; ``explain``: with what each lever would save; ``probe``:
        beside what two real steps took."""
        ...

    def emit(self, form: str, plan: Plan, device: Device) -> str:
        """The plan as another program's file: ``ganeum``, ``hf`` or ``deepspeed``."""
        ...

    def explain(self, plan: Plan) -> str:
        """Each figure of the plan derived."""
        ...


def config_file(word: str | PathLike[str]) -> Path | None:
    """The file of ours that a word means: YAML, or that of a run, by its directory or, where no model is called so, by
    its name; None: it is a model's name, directory or config.json."""
    path = Path(word)
    try:
        if (path / "config.yaml").is_file():
            return path / "config.yaml"
        run = results_dir() / path / "config.yaml"
        if run.is_file() and not path.exists() and not is_known(str(word)):
            return run
        suffix = path.suffix.lower()
        return path if suffix in (".yaml", ".yml") or (path.is_file() and suffix != ".json") else None
    except OSError:  # too long for a file's name
        return None


@dataclass(frozen=True)
class Run:
    """A config of ours, with what is known of its data."""

    config: Config
    tokens: int | None = None
    vocab_size: int | None = None
    val_tokens: int | None = None
    may_shorten: bool = False

    @classmethod
    def of(cls, config: Config, tokens: int | None = None, *, may_shorten: bool = False) -> Run:
        """With the sizes of its prepared data, or ``tokens`` where that is not there yet."""
        size = size_of(config.data.directory) if config.model.source is None else None
        if size is None:
            return cls(config, tokens, may_shorten=may_shorten)
        return cls(config, tokens or size.tokens, size.vocab_size, size.val_tokens, may_shorten)

    def plan(self, device: Device) -> Plan:
        """The plan of the training."""
        return closed_form.plan(
            self.config,
            device=device,
            tokens=self.tokens,
            vocab_size=self.vocab_size,
            val_tokens=self.val_tokens,
            may_shorten=self.may_shorten,
        )

    def exact(self, plan: Plan, device: Device, *, explain: bool = False, probe: Prober | None = None) -> Plan:
        """:func:`ganeum.plan.trace.exact.refined`."""
        from ganeum.plan.trace import exact

        return exact.refined(plan, self.config, device, explain=explain, probe=probe)

    def emit(self, form: str, plan: Plan, device: Device) -> str:
        """As :data:`ganeum.plan.emit.FORMS` has them; of a source with what can be written at once, for the Trainer."""
        if form == "hf" and self.config.model.source is not None:
            said = self.config.sample.at_once
            generating = self.used_for(Use()).at_once("generation", device) if said == "auto" else said
            return emit.hugging_face(self.config, plan, inference_batch_size=generating)
        return emit.FORMS[form](self.config, plan)

    def explain(self, plan: Plan) -> str:
        """:func:`ganeum.plan.page.explain.explain`."""
        from ganeum.plan.page.explain import explain

        return explain(self.config, plan)

    def used_for(self, use: Use) -> Model:
        """The same network for something else than training."""
        model = self.config.model
        vocab_size = model.vocab_size if model.vocab_size != "auto" else self.vocab_size or closed_form.GPT2_VOCAB_SIZE
        architecture = replace(configured.of(self.config, vocab_size), name=self.config.name or "a run")
        if model.source is not None and use.length == "auto":
            rows = rows_of(self.config, encoder_decoder=architecture.encoder_decoder)
            lengths = {"length": rows.target} | ({"source_length": rows.source} if rows.source else {})
            use = use.model_copy(update=lengths)
        return Model(architecture, use, self.may_shorten, change(self.config, {"model.vocab_size": vocab_size}))


@dataclass(frozen=True)
class Model:
    """Somebody else's model, and how it is to be run."""

    architecture: Architecture
    use: Use
    may_shorten: bool = False
    asked: str | Config = ""  # by what name, directory or file; or the run of ours that it is the network of

    def plan(self, device: Device) -> Plan:
        """The plan of what it is to be used for."""
        return named.plan(self.architecture, self.use, device, may_shorten=self.may_shorten)

    def exact(self, plan: Plan, device: Device, *, explain: bool = False, probe: Prober | None = None) -> Plan:
        """:func:`ganeum.plan.trace.named.refined`; it is not probed."""
        from ganeum.plan.trace import named as traced

        way = named.settled(self.architecture, self.use, device)
        return traced.refined(plan, self.asked, way, device, explain=explain)

    def emit(self, form: str, plan: Plan, device: Device) -> str:
        """TrainingArguments or a DeepSpeed JSON of its training.

        Raises:
            ConfigError: ganeum trains no such model; or it is not to be trained.
        """
        name = self.architecture.name
        if form == "ganeum":
            raise ConfigError(
                f"{name} cannot be written as a config of ganeum's",
                where="--emit ganeum",
                why="ganeum trains its own two styles; this plan is for Hugging Face's Trainer",
                suggestion="--emit hf or --emit deepspeed",
            )
        if self.use.purpose != "training":
            raise ConfigError(
                f"what is planned is {self.use.purpose}, and {form} is for a training",
                where=f"--emit {form}",
                suggestion="purpose=training",
            )
        config = self._config(plan, device)
        if form == "deepspeed":
            return emit.deepspeed(
                config,
                plan,
                devices=self.use.devices,
                zero_stage=self.use.zero_stage or None,
                offload=self.use.offload,
                largest=state.largest(self.architecture, self.use.lora),
            )
        return emit.hugging_face(config, plan, inference_batch_size=self.at_once("generation", device))

    def explain(self, plan: Plan) -> str:
        """:func:`ganeum.plan.page.explain.named`."""
        from ganeum.plan.page.explain import named

        return named(self.architecture, self.use, plan)

    def at_once(self, purpose: Purpose, device: Device) -> int:
        """Sequences that fit at once when it is used for something else than training."""
        use = self.use.model_copy(update={"purpose": purpose, "batch_size": "auto", "micro_batch_size": "auto"})
        size: int = named.plan(self.architecture, use, device)["batch"]["micro_batch_size"]
        return size

    def _config(self, plan: Plan, device: Device) -> Config:
        """What of a config of ours the two forms are written from."""
        use, batch = self.use, plan["batch"]
        way = {choice["key"]: choice["value"] for choice in plan["choices"]}
        level = way.get("activation_checkpointing", use.activation_checkpointing)
        rate = LEARNING_RATES.get(use.optimizer, LEARNING_RATE) if use.learning_rate == "auto" else use.learning_rate
        return Config(
            name=Path(self.architecture.name).name,
            train=Train(
                batch_size=batch["batch_size"],
                micro_batch_size=batch["micro_batch_size"],
                eval_batch_size=self.at_once("evaluation", device),
                precision=plan["device"]["precision"],
                activation_checkpointing=level,
                optimizer=use.optimizer,
                learning_rate=rate,
                max_iters=plan["data"].get("steps"),
            ),
        )
