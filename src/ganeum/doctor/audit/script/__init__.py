"""A training script, audited without running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ganeum.doctor.audit import trainer
from ganeum.doctor.audit.settings import Nothing, Said, Settings
from ganeum.doctor.audit.source import UNKNOWN, Call, Script
from ganeum.doctor.finding import Finding, Severity
from ganeum.hardware.device import Device

TRL = ("SFTConfig", "DPOConfig", "ORPOConfig")
ARGUMENTS = ("TrainingArguments", "Seq2SeqTrainingArguments", *TRL)
TRAINERS = ("Trainer", "Seq2SeqTrainer", "SFTTrainer")


@dataclass(frozen=True)
class Seen:
    """A script, and the device that it is to run on, where that is known."""

    script: Script
    device: Device | None = None

    def found(
        self,
        cause: str,
        title: str,
        line: int,
        *,
        evidence: tuple[str, ...] = (),
        change: str = "",
        severity: Severity = "warning",
        **size: Any,
    ) -> Finding:
        """A finding at a line, which is quoted as evidence."""
        said = self.script.text.splitlines()[line - 1].strip()[:100]
        return Finding(
            cause=cause,
            title=title,
            evidence=(said, *evidence),
            change=change,
            severity=severity,
            where=self.script.where(line),
            **size,
        )

    @property
    def typed(self) -> bool:
        """Whether a model is loaded in a number format that somebody chose, or in fewer bits."""
        return any(
            call.written[word] not in ("torch.float32", "'float32'", "None")
            for call in self.script.called("from_pretrained", "from_config")
            for word in call.written
            if word in ("dtype", "torch_dtype", "quantization_config", "load_in_8bit", "load_in_4bit")
        )

    @property
    def of_text(self) -> bool:
        """Whether it may be about language: pictures' captions have a fixed length, and little of a step is theirs."""
        return not any(name.partition(".")[0] in ("diffusers", "torchvision") for name in self.script.imported.values())

    @property
    def of_hugging_face(self) -> Call | None:
        """Its TrainingArguments."""
        return next(self.script.called(*ARGUMENTS), None)


def settings(seen: Seen) -> Iterator[Said]:
    """What TrainingArguments says."""
    for call in seen.script.called(*ARGUMENTS):
        place = seen.script.where(call.line)
        places = {"": place} | {
            word.arg: seen.script.where(word.value.lineno) for word in call.node.keywords if word.arg is not None
        }
        # TRL's own defaults went from False to True; and a model may have been loaded in a format of its own.
        unseen = ["bf16", "gradient_checkpointing"] if call.ends(*TRL) else ["bf16"] if seen.typed else []
        values = dict.fromkeys(unseen, UNKNOWN) | dict(call.keywords)
        whole = not call.spread
        yield from trainer.read(Settings(values, places, seen.device, complete=whole, text=seen.script.text))


def read(script: Script, device: Device | None = None) -> Iterator[Said]:
    """All that can be seen in it."""
    from ganeum.doctor.audit.script import attention, formats, labels, loader, loop, switches

    seen = Seen(script, device)
    looks: tuple[Callable[[Seen], Iterator[Said]], ...] = (
        settings,
        *formats.LOOKS,
        *attention.LOOKS,
        *loader.LOOKS,
        *loop.LOOKS,
        *labels.LOOKS,
        *switches.LOOKS,
    )
    for look in looks:
        yield from look(seen)


__all__ = ["Nothing", "Seen", "read"]
