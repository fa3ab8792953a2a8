"""The last words of a training that died: out of memory, Killed, no more threads; what they say, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import disk_usage

from ganeum import units
from ganeum.doctor import full_gpu
from ganeum.doctor.finding import Finding, Report, worst_first
from ganeum.hardware import limits

HOST = re.compile(
    r"DefaultCPUAllocator: (?:can't|not enough)|Unable to allocate [\d.]+ [KMGT]iB for an array|^\S*MemoryError\b"
    r"|Cannot allocate memory|std::bad_alloc|\[?WinError 1455\]?[^\n]*|paging file is too small",
    re.MULTILINE,
)
KILLED = re.compile(
    r"^(?:\S+: line \d+:\s+\d+ |zsh: )?Killed\b|oom[-_]kill|Out of memory: Kill(?:ed)? process|\bOUT_OF_MEMORY\b"
    r"|srun: error: .*Out Of Memory|Exceeded (?:step|job) memory limit|TERM_MEMLIMIT|PBS: job killed: v?mem"
    r"|exit(?:ed)? (?:with )?(?:code|status) 137|SIGKILL|\b-9\b.*(?:killed|exit)|OOMKilled"
    r"|DataLoader worker \(pid.*?\) is killed by signal: Killed",
    re.MULTILINE | re.IGNORECASE,
)
CERTAIN = re.compile(
    r"oom|out.of.memory|memory limit|MEMLIMIT|killed: v?mem", re.IGNORECASE
)  # of a kill: for its memory
BY_LIMIT = re.compile(r"cgroup|CONSTRAINT_MEMCG|slurm|srun|memory limit|MEMLIMIT|PBS:|OOMKilled", re.IGNORECASE)
SHARED = re.compile(
    r"Bus error|bus error|insufficient shared memory|No space left on device.*shm|failed to extend /dev/shm\S*"
    r"|unable to (?:open|mmap|write to|resize) (?:shared memory object |file )?<?\S*/?torch_\w+>?|_?SemLock\("
)
FULL_DISK = "No space left on device"  # of a semaphore: /dev/shm, where these lie
FILES = re.compile(r"Too many open files|received 0 items of ancdata")
SHM = Path("/dev/shm")
MANY_THREADS = "OpenBLAS blas_thread_init: pthread_create failed"


def report(text: str, subject: str = "the message") -> Report:
    """What the message says, and what to do about it, the most likely first."""
    findings = [finding for look in LOOKS for finding in look(text)]
    headline = worst_first(findings)[0].title if findings else (
        "no out-of-memory, no Killed and no missing threads or files are in it: `ganeum doctor log` reads training "
        "logs, `ganeum doctor gpu --from-text` what nvidia-smi prints"
    )  # fmt: skip
    return Report(subject=subject, headline=headline, findings=worst_first(findings))


def machine_memory(text: str) -> Iterator[Finding]:
    """`Killed`, and the machine's own memory."""
    on_gpu = full_gpu.OUT_OF_MEMORY.search(text)
    if (match := _shared(text)) is not None:
        yield Finding(
            cause="shared_memory",
            title="shared memory is full: what processes hand to each other lies there",
            evidence=(f"“{match.strip()}”", *_room()),
            change="docker run --shm-size=8g (or --ipc=host); in Kubernetes an emptyDir of medium Memory at /dev/shm; "
            "fewer loader processes, a smaller prefetch_factor",
            severity="error",
        )
    elif (found := KILLED.search(text)) is not None and not on_gpu:
        yield _killed(text, found[0].strip())
    elif (found := HOST.search(text)) is not None and not on_gpu and not _threads(text):
        yield Finding(
            cause="host_memory",
            title="the machine's own memory is full, or a limit on it is reached (ulimit -v, a container's)",
            evidence=(found[0].strip(),),
            change="a memory map instead of loading the file, fewer loader processes; under Windows a larger "
            "paging file; with training on the CPU a smaller micro-batch",
            severity="error",
        )


def _killed(text: str, said: str) -> Finding:
    certain = CERTAIN.search(text) is not None
    why = "" if certain else ": the kernel ends a process so when the machine's memory is full"
    evidence = [f"“{said}”{why}"]
    if told := re.search(r"anon-rss:([\d,]+)\s*kB", text):
        evidence.append(f"it held {units.size(float(told[1].replace(',', '')) * 1024)} then")
    limited = BY_LIMIT.search(text) is not None
    more = "more for the job (Slurm: --mem; docker run --memory)" if limited else "a larger container or swap"
    return Finding(
        cause="host_memory",
        title="the process was killed because the memory it was given was full"
        if certain and limited
        else "the process was killed because the machine's memory was full"
        if certain
        else "the process was killed from outside, most likely for want of the machine's memory",
        evidence=tuple(evidence),
        change="`dmesg | grep -i kill` says it for certain; fewer loader processes, data read from a memory map, not "
        f"from lists, evaluation that keeps no logits; {more}",
        severity="error",
        sure="read" if certain else "unconfirmed here",
    )


def _shared(text: str) -> str | None:
    """The words that say that there is no more shared memory."""
    match = SHARED.search(text)
    if match is None or ("SemLock" in match[0] and FULL_DISK not in text):
        return None
    return match[0]


def _room() -> Iterator[str]:
    """What this machine has of it."""
    if SHM.is_dir():
        found = disk_usage(SHM)
        yield f"on this machine now: {units.size(found.free)} of {units.size(found.total)} free in {SHM}"


def open_files(text: str) -> Iterator[Finding]:
    """Tensors that loader processes hand over are files that are open."""
    if (found := FILES.search(text)) is not None:
        yield Finding(
            cause="open_files",
            title="too many files are open, which tensors from loader processes count as; this is no want of memory",
            evidence=(f"“{found[0]}”",),
            change="`ulimit -n 65535`; torch.multiprocessing.set_sharing_strategy('file_system'); no tensors of its "
            "batches kept in a list (clone what is kept)",
            severity="error",
        )


def _threads(text: str) -> str | None:
    """The line that says that no thread could be started."""
    said = (
        *limits.NO_THREAD[:2],
        MANY_THREADS,
        "fork: retry: Resource temporarily unavailable",
        "fork rejected by pids",
    )
    signs = ("BlockingIOError", "pthread_create", "libgomp: Thread creation failed", "std::system_error")
    blocked = any(sign in text for sign in signs)
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


LOOKS: tuple[Callable[[str], Iterator[Finding]], ...] = (full_gpu.findings, machine_memory, open_files, threads)
