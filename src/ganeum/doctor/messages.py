"""The last words of a training that died: out of memory, Killed, no more threads; what they say, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from ganeum import units
from ganeum.doctor.finding import Finding, Report, worst_first
from ganeum.hardware import limits

NUMBER = r"(\d+(?:\.\d+)?)\s*(bytes|KiB|MiB|GiB|TiB|KB|MB|GB)"
SIZES = {"bytes": 1.0, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "KB": 1e3, "MB": 1e6, "GB": 1e9}
# torch's wording by generation: "Tried to allocate" in all; "(GPU 0; … total capacity; … already allocated; … free; …
# reserved in total by PyTorch)" from 0.4 to 2.0; "GPU 0 has a total capacity of … of which … is free. … is allocated by
# PyTorch, and … is reserved by PyTorch but unallocated" since 2.1.
FIGURES = {
    "wanted": (rf"Tried to allocate {NUMBER}",),
    "total": (rf"{NUMBER} total capacity", rf"total capacity of {NUMBER}", rf"total capacty of {NUMBER}"),
    "free": (rf"of which {NUMBER} is free", rf"{NUMBER} free"),
    "allocated": (rf"{NUMBER} is allocated by PyTorch", rf"{NUMBER} already allocated"),
    "unallocated": (rf"{NUMBER} is reserved by PyTorch but unallocated",),
    "reserved": (rf"{NUMBER} reserved in total by PyTorch", rf"{NUMBER} cached"),
    "process": (rf"this process has {NUMBER} memory in use",),
    "others": (rf"Process \d+ has {NUMBER} memory in use",),
    "allowed": (rf"{NUMBER} allowed",),
}
OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|(?:torch|cuda)\.OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|HIP out of memory|MPS backend out of memory|cuda runtime error \(2\)|CUDA_ERROR_OUT_OF_MEMORY"
    r"|RESOURCE_EXHAUSTED: Out of memory|OOM when allocating tensor"
)
EVALUATING = re.compile(
    r"in (?:evaluate|evaluation_loop|prediction_loop|predict|compute_metrics|nested_concat|generate)\b"
)
LOSS = re.compile(r"cross_entropy|log_softmax|in lm_head|self\.lm_head|\.float\(\)", re.IGNORECASE)
UPDATE = re.compile(r"optimizer\.step|_init_group|exp_avg|in step\b")
ATTENTION = re.compile(r"attn_weights|attention_scores|torch\.matmul\(query|in _attn\b|eager_attention_forward")
HOST = re.compile(
    r"DefaultCPUAllocator: (?:can't|not enough)|Unable to allocate [\d.]+ [KMGT]iB for an array|^\S*MemoryError\b"
    r"|Cannot allocate memory|std::bad_alloc|\[?WinError 1455\]?[^\n]*|paging file is too small",
    re.MULTILINE,
)
KILLED = re.compile(
    r"^(?:\S+: line \d+:\s+\d+ |zsh: )?Killed\b|oom-kill|Out of memory: Killed process"
    r"|exit(?:ed)? (?:with )?(?:code|status) 137|SIGKILL|\b-9\b.*(?:killed|exit)|OOMKilled",
    re.MULTILINE | re.IGNORECASE,
)
WORKER = re.compile(r"DataLoader worker \(pid.*?\) is killed by signal: (Killed|Bus error)")
SHARED = re.compile(
    r"Bus error|No space left on device.*shm|insufficient shared memory|unable to (?:open|mmap).*/torch_"
)
LARGE_HOLE = 0.1  # of what torch holds: reserved and in no tensor
MANY_THREADS = "OpenBLAS blas_thread_init: pthread_create failed"


@dataclass(frozen=True)
class OutOfMemory:
    """What such a message says, in bytes; None where it does not."""

    wanted: float | None = None
    total: float | None = None
    free: float | None = None
    allocated: float | None = None
    unallocated: float | None = None
    reserved: float | None = None
    process: float | None = None
    others: float | None = None
    allowed: float | None = None

    @classmethod
    def read(cls, text: str) -> OutOfMemory:
        """The first such message in ``text``, of any generation."""
        flat = " ".join(text.split())
        if "Tried to allocate" in flat:
            flat = flat[flat.index("Tried to allocate") :][:1500]
        found: dict[str, float] = {}
        for name, patterns in FIGURES.items():
            for pattern in patterns:
                if match := re.search(pattern, flat):
                    found.setdefault(name, float(match[1]) * SIZES[match[2]])
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
        """Bytes of the card that are neither free nor torch's here: other processes, and what CUDA itself takes."""
        if self.others is not None:
            return self.others
        held = self.reserved
        if held is None and self.allocated is not None and self.unallocated is not None:
            held = self.allocated + self.unallocated
        if self.total is None or self.free is None or held is None:
            return None
        return max(0.0, self.total - self.free - held)


def report(text: str, subject: str = "the message") -> Report:
    """What the message says, and what to do about it, the most likely first."""
    findings = [finding for look in LOOKS for finding in look(text)]
    headline = worst_first(findings)[0].title if findings else (
        "no out-of-memory, no Killed and no missing threads are in it: `ganeum doctor log` reads training logs, "
        "`ganeum doctor gpu --from-text` what nvidia-smi prints"
    )  # fmt: skip
    return Report(subject=subject, headline=headline, findings=worst_first(findings))


def gpu_memory(text: str) -> Iterator[Finding]:
    """CUDA's, HIP's and MPS's out-of-memory."""
    if not OUT_OF_MEMORY.search(text):
        return
    said = OutOfMemory.read(text)
    evidence = []
    if said.wanted is not None:
        room = f", and {units.size(said.free)} were free" if said.free is not None else ""
        of = f" of {units.size(said.total)}" if said.total is not None and room else ""
        evidence.append(f"{units.size(said.wanted)} more were asked for{room}{of}")
    if said.allocated is not None:
        evidence.append(f"{units.size(said.allocated)} lie in tensors")
    yield Finding(
        cause="does_not_fit",
        title="the GPU's memory is full",
        evidence=tuple(evidence) or ("the message has no figures",),
        change="half the micro-batch and twice the accumulation: the same batch; then activation checkpointing; then a "
        "smaller optimizer state (adamw8bit, adapters). `ganeum plan CONFIG` says what each gives before it runs",
        severity="error",
        size=None if said.wanted is None or said.free is None else max(0.0, said.wanted - said.free) / 2**30 or None,
        unit="GiB short, at that moment" if said.wanted is not None and said.free is not None else "",
    )
    held = (said.allocated or 0) + (said.hole or 0)
    if said.hole is not None and held and said.hole > LARGE_HOLE * held:
        enough = said.wanted is not None and said.hole + (said.free or 0) >= said.wanted
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
            size=said.hole / 2**30,
            unit="GiB",
        )
    if said.elsewhere is not None and said.elsewhere > 1.5 * 2**30:
        yield Finding(
            cause="other_processes",
            title=f"{units.size(said.elsewhere)} of the card are not this process's tensors",
            evidence=("other programs, and the half GiB or so that CUDA takes for itself",),
            change="nvidia-smi lists who holds it; end what is not needed (a notebook that still runs, mostly)",
            severity="warning",
            sure="computed",
            size=said.elsewhere / 2**30,
            unit="GiB",
        )
    yield from _moment(text, said)


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


def machine_memory(text: str) -> Iterator[Finding]:
    """`Killed`, and the machine's own memory."""
    if WORKER.search(text) or SHARED.search(text):
        yield Finding(
            cause="host_memory",
            title="a loader process died for want of memory, in a container mostly of shared memory",
            evidence=tuple(match[0] for match in [WORKER.search(text) or SHARED.search(text)] if match),
            change="docker run --shm-size=8g (or --ipc=host), fewer loader processes, no Python lists in the data set",
            severity="error",
        )
    elif KILLED.search(text) and not OUT_OF_MEMORY.search(text):
        match = KILLED.search(text)
        assert match is not None
        told = re.search(r"anon-rss:(\d+)kB", text)
        evidence = [f"“{match[0].strip()}”: the kernel ends a process so when the machine's memory is full"]
        if told:
            evidence.append(f"it held {units.size(float(told[1]) * 1024)} then")
        yield Finding(
            cause="host_memory",
            title="the process was killed from outside, most likely for want of the machine's memory",
            evidence=tuple(evidence),
            change="`dmesg | grep -i kill` says it for certain; fewer loader processes, data read from a "
            "memory map instead "
            "of lists, evaluation that keeps no logits; a larger container or swap",
            severity="error",
            sure="unconfirmed here" if "oom" not in text.lower() and "Out of memory" not in text else "read",
        )
    elif (match := HOST.search(text)) and not OUT_OF_MEMORY.search(text) and not _threads(text):
        yield Finding(
            cause="host_memory",
            title="the machine's own memory is full, or a limit on it is reached (ulimit -v, a container's)",
            evidence=(match[0].strip(),),
            change="a memory map instead of loading the file, fewer loader processes; under Windows a larger "
            "paging file; with training on the CPU "
            "a smaller "
            "micro-batch",
            severity="error",
        )


def _threads(text: str) -> str | None:
    """The line that says that no thread could be started."""
    said = (*limits.NO_THREAD[:2], MANY_THREADS, "fork: retry: Resource temporarily unavailable")
    blocked = "BlockingIOError" in text or "pthread_create" in text or "libgomp: Thread creation failed" in text
    for line in text.splitlines():
        if any(words in line for words in said) or (blocked and "Resource temporarily unavailable" in line):
            return line.strip()
        if "libgomp: Thread creation failed" in line:
            return line.strip()
    return None


def threads(text: str) -> Iterator[Finding]:
    """`unable to create new native thread`, `can't start new thread` and their kin."""
    line = _threads(text)
    if line is None:
        return
    yield Finding(
        cause="no_threads",
        title="the system let no more threads be started; this is no want of memory",
        evidence=(
            f"“{line[:200]}”",
            f"on this machine now: {limits.threads()}",
        ),
        change="OMP_NUM_THREADS=1 and fewer loader processes, which start a thread for each core each; `ulimit "
        "-u 65535`; "
        "docker run --pids-limit=-1; or end programs of yours that were left behind",
        severity="error",
    )


LOOKS: tuple[Callable[[str], Iterator[Finding]], ...] = (gpu_memory, machine_memory, threads)
