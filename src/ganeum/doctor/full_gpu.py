"""An accelerator's out-of-memory message: what torch, JAX and TensorFlow say of any generation, and what follows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields

from ganeum import units
from ganeum.doctor.finding import Finding
from ganeum.units import GIB

NUMBER = r"(\d+(?:\.\d+)?)\s*(bytes|[KMGT]i?B)"
SIZES = {"bytes": 1.0} | {f"{letter}iB": 2.0 ** (10 * n) for n, letter in enumerate("KMGT", 1)}
SIZES |= {f"{letter}B": 1e3**n for n, letter in enumerate("KMGT", 1)}
# torch's wording by generation: "(GPU 0; … total capacity; … already allocated; … free; … cached)" of 0.4 to 1.2, where
# cached is what is in no tensor; "… reserved in total by PyTorch" until 2.0; since 2.1 "GPU 0 has a total capacity of …
# of which … is free. … is allocated by PyTorch, and … is reserved by PyTorch but unallocated". cudaMallocAsync's and
# Metal's have words of their own.
FIGURES = {
    "wanted": (
        rf"Tried to allocate {NUMBER}",
        rf"Requested\s*: {NUMBER}",
        rf"(?:trying to allocate|allocate request for) {NUMBER}",
        r"failed to allocate [\d.]+[KMGT]? \((\d+) (bytes)\)",
    ),
    "total": (rf"{NUMBER} total capacity", rf"total capac(?:i)?ty of {NUMBER}", rf"Device limit\s*: {NUMBER}"),
    "free": (rf"of which {NUMBER} is free", rf"{NUMBER} free", rf"Free \(according to CUDA\)\s*: {NUMBER}"),
    "allocated": (
        rf"{NUMBER} is allocated by PyTorch",
        rf"{NUMBER} already allocated",
        rf"Currently allocated\s*: {NUMBER}",
        rf"MPS allocated: {NUMBER}",
    ),
    "unallocated": (rf"{NUMBER} is reserved by PyTorch but unallocated", rf"{NUMBER} cached"),
    "reserved": (rf"{NUMBER} reserved in total by PyTorch",),
    "process": (rf"this process has {NUMBER} memory in use",),
    "others": (rf"Process \d+ has {NUMBER} memory in use",),
    "allowed": (rf"{NUMBER} allowed", rf"max allowed: {NUMBER}"),
    "metal": (rf"other allocations: {NUMBER}",),
}
OUT_OF_MEMORY = re.compile(
    r"(?:CUDA|HIP|XPU|NPU|MPS backend|NCCL) out of memory|(?:torch|cuda)\.OutOfMemoryError|(?:CUDA|HIP) error: out of"
    r"|would exceed allowed memory|CUDA error 2 |cuda runtime error \(2\)|CUDA_ERROR_OUT_OF_MEMORY"
    r"|cudaErrorMemoryAllocation|hipErrorOutOfMemory|CU(?:BLAS|DNN|SPARSE)_STATUS_ALLOC_FAILED"
    r"|(?:RESOURCE_EXHAUSTED|Resource exhausted): (?:Out of memory|Failed to allocate)|OOM when allocating tensor"
)
MAYBE = re.compile(r"CU(?:BLAS|DNN)_STATUS_NOT_INITIALIZED")  # no memory for its workspace, mostly
NOT_MEMORY = "device-side assert"  # whatever is asked for after it fails
JAX = re.compile(r"jaxlib|/jax/|device ordinal")
EVALUATING = re.compile(
    r"in (?:evaluate|evaluation_loop|prediction_loop|predict|compute_metrics|nested_concat|generate)\b"
)
LOSS = re.compile(r"cross_entropy|log_softmax|in lm_head|self\.lm_head|\.float\(\)", re.IGNORECASE)
UPDATE = re.compile(r"optimizer\.step|_init_group|exp_avg|in step\b")
ATTENTION = re.compile(r"attn_weights|attention_scores|torch\.matmul\(query|in _attn\b|eager_attention_forward")
LARGE_HOLE = 0.1  # of what torch holds: reserved and in no tensor
OTHERS = 1.5 * GIB  # of the card: CUDA itself takes about half a GiB
ROOM = 0.9  # of a card: what is less than that together was not too much
NOT_KNOWN = 2.0**50  # bytes: NVML's "not available" comes out as 17179869184.00 GiB
LESS = (
    "half the micro-batch and twice the accumulation: the same batch; then activation checkpointing; then a "
    "smaller optimizer state (adamw8bit, adapters). `ganeum plan CONFIG` says what each gives before it runs"
)


@dataclass(frozen=True)
class OutOfMemory:
    """What such a message says, in bytes; None where it does not.

    Attributes:
        wanted: asked for. total: of the card. free: of it. allowed: to this process.
        allocated: in tensors. unallocated: held by torch and in no tensor. reserved: both.
        process: of this process, CUDA's own included. others: of other processes together.
        metal: on a Mac: beside the tensors.
    """

    wanted: float | None = None
    total: float | None = None
    free: float | None = None
    allocated: float | None = None
    unallocated: float | None = None
    reserved: float | None = None
    process: float | None = None
    others: float | None = None
    allowed: float | None = None
    metal: float | None = None

    @classmethod
    def read(cls, text: str) -> OutOfMemory:
        """The first such message in ``text``, of any generation."""
        flat = " ".join(text.split())
        if (first := OUT_OF_MEMORY.search(flat)) is not None:
            flat = flat[max(0, first.start() - 200) :][:1800]
            flat = "Tried to allocate".join(flat.split("Tried to allocate")[:2])
        found: dict[str, float] = {}
        for name, patterns in FIGURES.items():
            for pattern in patterns:
                sizes = [float(match[1]) * SIZES[match[2]] for match in re.finditer(pattern, flat)]
                if sizes := [size for size in sizes if size < NOT_KNOWN]:
                    found.setdefault(name, sum(sizes) if name == "others" else sizes[0])
        return cls(**{field.name: found.get(field.name) for field in fields(cls)})

    @property
    def hole(self) -> float | None:
        """Bytes that torch holds and that are in no tensor."""
        if self.unallocated is not None:
            return self.unallocated
        if self.reserved is not None and self.allocated is not None:
            return max(0.0, self.reserved - self.allocated)
        return None

    @property
    def elsewhere(self) -> float | None:
        """Bytes of the card that are neither free nor this process's; where its own are not said, with CUDA's."""
        if self.others is not None:
            return self.others
        held = self.process or self.held
        if self.total is None or self.free is None or held is None:
            return None
        return max(0.0, self.total - self.free - held)

    @property
    def held(self) -> float | None:
        """Bytes that torch holds."""
        if self.reserved is None and self.allocated is not None:
            return self.allocated + (self.unallocated or 0.0)
        return self.reserved

    @property
    def missing(self) -> float | None:
        """Bytes that were too few; negative: there was room on the card."""
        return None if self.wanted is None or self.free is None else self.wanted - self.free

    def enough(self, more: float) -> bool:
        """Whether ``more`` bytes would have been enough, as far as is known."""
        return self.missing is None or more >= self.missing


def findings(text: str) -> Iterator[Finding]:
    """What an out-of-memory message says; nothing where there is none."""
    if NOT_MEMORY in text:
        return
    if not OUT_OF_MEMORY.search(text):
        if (maybe := MAYBE.search(text)) is not None:
            yield _maybe(maybe[0])
        return
    said = OutOfMemory.read(text)
    if said.free is not None and said.missing is not None and said.missing <= 0:
        yield _limit(said) if said.allowed is not None else _refused(said, f"{units.size(said.free)} of it were free")
        return
    if said.free is None and said.total and said.wanted and (said.held or 0.0) + said.wanted < ROOM * said.total:
        yield _refused(said, f"torch held {units.size(said.held or 0.0)} of its {units.size(said.total)}")
        return
    yield _full(text, said)
    if said.total is not None and said.allocated is not None and said.allocated > said.total:
        yield Finding(
            cause="spill",
            title=f"{units.size(said.allocated)} lay in tensors, on a card of {units.size(said.total)}",
            evidence=("the driver had moved the rest into the machine's own memory: it was slow before it was full",),
            change="a smaller micro-batch, until all of it lies on the card",
            sure="computed",
        )
    yield from _pieces(said)
    yield from _others(said)
    yield from _moment(text, said)


def _full(text: str, said: OutOfMemory) -> Finding:
    evidence = []
    if said.wanted is not None:
        room = f", and {units.size(said.free)} were free" if said.free is not None else ""
        of = f" of {units.size(said.total)}" if said.total is not None and room else ""
        evidence.append(f"{units.size(said.wanted)} more were asked for{room}{of}")
    if said.allocated is not None:
        beside = f", and {units.size(said.metal)} are Metal's beside them" if said.metal is not None else ""
        most = f"; {units.size(said.allowed)} are allowed" if said.allowed is not None else ""
        evidence.append(f"{units.size(said.allocated)} lie in tensors{beside}{most}")
    change = LESS
    if said.wanted is not None and said.total is not None and said.wanted > said.total:
        evidence.append("that is one tensor, larger than the whole card: nothing else that is there matters")
        change = "look at its shape: rows far longer than the others, attention that is not fused, logits; " + LESS
    elif said.metal is not None:
        change += "; PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 lifts the limit, and a Mac whose memory is full stands still"
    elif JAX.search(text):
        change = (
            "a smaller batch, jax.checkpoint; XLA_CLIENT_MEM_FRACTION=0.9 (before: XLA_PYTHON_CLIENT_MEM_FRACTION), "
            "since JAX takes three quarters of the card at its start and no more; two such programs do not fit"
        )
    if said.elsewhere is not None and said.elsewhere > OTHERS and said.enough(said.elsewhere):
        change = "first what others hold of it, below; else " + change
    size, unit = None, ""
    if said.missing is not None:
        letters = "GiB" if said.missing >= 0.1 * GIB else "MiB"
        size, unit = said.missing / SIZES[letters], f"{letters} short, at that moment"
    return Finding(
        cause="does_not_fit",
        title="the GPU's memory is full",
        evidence=tuple(evidence) or ("the message has no figures",),
        change=change,
        severity="error",
        size=size,
        unit=unit,
    )


def _maybe(said: str) -> Finding:
    return Finding(
        cause="does_not_fit",
        title="the GPU's memory may have been full: a library found none for its own work",
        evidence=(f"“{said}”", "it says the same after an id beyond the vocabulary, and of a driver that does not fit"),
        change="once more with half the micro-batch; CUDA_LAUNCH_BLOCKING=1, or a step on the CPU, names an id that is "
        "too large",
        severity="error",
        sure="unconfirmed here",
    )


def _limit(said: OutOfMemory) -> Finding:
    assert said.allowed is not None
    assert said.free is not None
    return Finding(
        cause="memory_limit",
        title=f"this process may take {units.size(said.allowed)} of the card, and has it",
        evidence=(f"{units.size(said.free)} of the card were free",),
        change="torch.cuda.set_per_process_memory_fraction(1.0), or whatever set it lower, here or in a library; or "
        "half the micro-batch",
        severity="error",
    )


def _refused(said: OutOfMemory, though: str) -> Finding:
    assert said.wanted is not None
    return Finding(
        cause="refused_memory",
        title=f"the card refused {units.size(said.wanted)}, although {though}",
        evidence=("so a smaller batch is no remedy by itself",),
        change="nvidia-smi while it starts: another program may have had the memory at that moment, and have ended; "
        "Windows: a larger paging file, which stands behind all of a GPU's memory; WSL: pin_memory=False, more memory "
        "in .wslconfig; Intel's GPUs: UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS=1 for more than 4 GiB at once; `ulimit -v "
        "unlimited`; a newer driver",
        severity="error",
    )


def _pieces(said: OutOfMemory) -> Iterator[Finding]:
    held = (said.allocated or 0.0) + (said.hole or 0.0)
    if said.hole is None or said.hole <= LARGE_HOLE * held or not said.enough(4 * said.hole):
        return
    enough = said.missing is not None and said.enough(said.hole)
    yield Finding(
        cause="fragmentation",
        title=f"{units.size(said.hole)} are reserved by torch and lie in pieces that fitted nothing",
        evidence=(
            f"{said.hole / held:.0%} of what it holds"
            + ("; together they would have been enough for what was asked for" if enough else ""),
        ),
        change="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True before the command (Linux); lengths in few sizes",
        severity="warning" if enough else "note",
        sure="computed",
        size=said.hole / GIB,
        unit="GiB",
    )


def _others(said: OutOfMemory) -> Iterator[Finding]:
    if said.elsewhere is None or said.elsewhere <= OTHERS:
        return
    enough = said.enough(said.elsewhere)
    if not enough and said.total is not None and said.elsewhere < said.total / 4:
        return
    yield Finding(
        cause="other_processes",
        title=f"{units.size(said.elsewhere)} of the card are not this process's",
        evidence=(
            "other programs" + ("" if said.process else ", and the half GiB or so that CUDA takes for itself"),
            *(() if enough else ("without them it would have been too little, too",)),
        ),
        change="nvidia-smi lists who holds it; end what is not needed (a notebook that still runs, mostly)",
        severity="warning" if enough else "note",
        sure="computed",
        size=said.elsewhere / GIB,
        unit="GiB",
    )


def _moment(text: str, said: OutOfMemory) -> Iterator[Finding]:
    """Where in a step it happened, by the lines of the traceback."""
    if EVALUATING.search(text):
        yield Finding(
            cause="kept_logits",
            title="it happened in an evaluation",
            evidence=("an evaluation that keeps its logits needs rows × tokens × vocabulary × 4 bytes",),
            change="per_device_eval_batch_size smaller; preprocess_logits_for_metrics=lambda logits, labels: "
            "logits.argmax(-1); with ganeum train.eval_batch_size=auto",
            severity="note",
        )
    elif UPDATE.search(text):
        yield Finding(
            cause="optimizer_state",
            title="it happened in an update: the optimizer's state comes into being with the first one",
            evidence=("AdamW's two moments are 8 bytes a parameter",),
            change="adamw8bit, Adafactor, adapters, or the state on the CPU; a smaller batch helps less than usual",
            severity="note",
        )
    elif LOSS.search(text):
        size = f"; {units.size(said.wanted)} is what one copy of them takes" if said.wanted else ""
        yield Finding(
            cause="logits",
            title="it happened at the logits or the loss",
            evidence=(f"sequences × tokens × vocabulary × 4 bytes, and as much again for their gradient{size}",),
            change="a smaller micro-batch, or the loss in chunks (train.loss_chunk=auto)",
            severity="note",
        )
    elif ATTENTION.search(text):
        yield Finding(
            cause="eager_attention",
            title="it happened at attention's scores",
            evidence=("sequences × heads × tokens² numbers, where attention is not fused",),
            change='attn_implementation="sdpa"; a shorter context',
            severity="note",
        )
