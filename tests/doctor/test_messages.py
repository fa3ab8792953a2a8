"""The last words of a training: every generation of torch's wording, Killed, threads; and what is none of them."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from last_words import GPU, MACHINE, Said
from mutilated import mutilated

from ganeum.doctor import messages
from ganeum.doctor.full_gpu import OutOfMemory

GIB = 2**30
# As torch 1.0, 1.13, 2.0, 2.1 and 2.6 word it.
WORDINGS = {
    "1.0": (
        "RuntimeError: CUDA out of memory. Tried to allocate 1.50 GiB (GPU 0; 15.90 GiB total capacity; 13.10 "
        "GiB already "
        "allocated; 900.00 MiB free; 1.00 GiB cached)",
        OutOfMemory(1.5 * GIB, 15.9 * GIB, 900 * 2**20, 13.1 * GIB, 1.0 * GIB),  # cached: beside what is allocated,
    ),
    "1.13": (
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 786.00 MiB (GPU 0; 15.78 GiB total "
        "capacity; "
        "10.20 GiB already allocated; 300.00 MiB free; 14.10 GiB reserved in total by PyTorch) If reserved "
        "memory is >> "
        "allocated memory try setting max_split_size_mb to avoid fragmentation.",
        OutOfMemory(786 * 2**20, 15.78 * GIB, 300 * 2**20, 10.2 * GIB, None, 14.1 * GIB),
    ),
    "2.1": (
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.07 GiB. GPU 0 has a total "
        "capacty of 23.69 "
        "GiB of which 1.02 GiB is free. Including non-PyTorch memory, this process has 22.60 GiB memory in use. Of the "
        "allocated memory 21.90 GiB is allocated by PyTorch, and 412.00 MiB is reserved by PyTorch but unallocated.",
        OutOfMemory(3.07 * GIB, 23.69 * GIB, 1.02 * GIB, 21.9 * GIB, 412 * 2**20, None, 22.6 * GIB),
    ),
    "2.6": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.53 GiB. GPU 0 has a total capacity of "
        "15.69 GiB of "
        "which 900.00 MiB is free. Process 4242 has 6.00 GiB memory in use. Including non-PyTorch memory, this "
        "process has "
        "8.80 GiB memory in use. Of the allocated memory 8.10 GiB is allocated by PyTorch, and 200.00 MiB is "
        "reserved by "
        "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
        "PYTORCH_ALLOC_CONF=expandable_segments:True",
        OutOfMemory(1.53 * GIB, 15.69 * GIB, 900 * 2**20, 8.1 * GIB, 200 * 2**20, None, 8.8 * GIB, 6 * GIB),
    ),
}


def causes(text: str) -> list[str]:
    return [finding.cause for finding in messages.report(text).findings]


@pytest.mark.parametrize("version", WORDINGS)
def test_every_generation_of_the_wording_is_read(version: str) -> None:
    """All figures, broken over lines or not."""
    text, figures = WORDINGS[version]
    assert figures == OutOfMemory.read(text)
    assert figures == OutOfMemory.read(text.replace(". ", ".\n    "))
    assert "does_not_fit" == causes(text)[0]


def test_memory_in_pieces_is_told_only_where_there_is_much_of_it() -> None:
    """3.9 GiB reserved and in no tensor would have been enough for 786 MiB; 412 MiB of 22 GiB are nothing."""
    holes = next(f for f in messages.report(WORDINGS["1.13"][0]).findings if f.cause == "fragmentation")
    assert holes.size == pytest.approx(3.9)
    assert "together they would have been enough" in holes.evidence[0]
    assert "fragmentation" not in causes(WORDINGS["2.1"][0])


def test_other_programs_are_told_with_what_they_hold() -> None:
    """6 GiB of process 4242; nothing where the rest is CUDA's own half GiB."""
    other = next(f for f in messages.report(WORDINGS["2.6"][0]).findings if f.cause == "other_processes")
    assert 6.0 == other.size
    assert "other_processes" not in causes(WORDINGS["2.1"][0])


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('  File "trainer.py", line 4000, in evaluation_loop', "kept_logits"),
        ("    optimizer.step()", "optimizer_state"),
        ("    loss = F.cross_entropy(logits.view(-1, V), labels.view(-1))", "logits"),
        ("    attn_weights = torch.matmul(query, key.transpose(2, 3))", "eager_attention"),
    ],
)
def test_the_traceback_says_where_in_a_step_it_was(line: str, cause: str) -> None:
    """Evaluation, update, logits, attention; nothing without a traceback."""
    text = WORDINGS["2.1"][0]
    assert cause in causes(f"Traceback (most recent call last):\n{line}\n{text}")
    assert cause not in causes(text)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Killed\n", "host_memory"),
        ("./run.sh: line 3:  4242 Killed                  python train.py", "host_memory"),
        ("Out of memory: Killed process 4242 (python) total-vm:90000000kB, anon-rss:31457280kB", "host_memory"),
        ("command terminated with exit code 137", "host_memory"),
        ("RuntimeError: DataLoader worker (pid(s) 4242) is killed by signal: Killed.", "host_memory"),
        ("ERROR: Unexpected bus error encountered in worker. DataLoader worker (pid 7) is killed by signal: Bus error.",
         "shared_memory"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to "
         "allocate 34359738368 bytes.", "host_memory"),
        ("zsh: killed     python train.py", "host_memory"),
        ("OSError: [WinError 1455] The paging file is too small for this operation to complete.", "host_memory"),
        ("RuntimeError: cuda runtime error (2) : out of memory at THCStorage.cu:58", "does_not_fit"),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4294967296 bytes.", "does_not_fit"),
        ("numpy.core._exceptions._ArrayMemoryError: Unable to allocate 12.5 GiB for an array", "host_memory"),
        ("java.lang.OutOfMemoryError: unable to create new native thread", "no_threads"),
        ("RuntimeError: can't start new thread", "no_threads"),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 63 of 64: Resource temporarily unavailable",
         "no_threads"),
        ("libgomp: Thread creation failed: Resource temporarily unavailable", "no_threads"),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "no_threads"),
    ],
)  # fmt: skip
def test_the_machine_s_own_limits_are_told_apart(text: str, cause: str) -> None:
    """Memory of the machine, shared memory, threads: one cause each; Java's out-of-memory of threads is no memory."""
    assert [cause] == causes(text)


@pytest.mark.parametrize("said", [*GPU, *MACHINE], ids=lambda said: said.where)
def test_what_others_published_is_explained(said: Said) -> None:
    """Its causes and no others, worst first; the figures where they are listed; nothing is told twice."""
    assert list(said.causes) == causes(said.text)
    if said.figures:
        read = {name: value for name, value in vars(OutOfMemory.read(said.text)).items() if value is not None}
        assert said.figures == read


def test_figures_come_from_one_message() -> None:
    """Of two messages the first, whatever the second adds; of other processes all; NVML's "not available" is none."""
    text = WORDINGS["2.6"][0]
    assert OutOfMemory.read(f"{text}\n{WORDINGS['1.13'][0]}") == WORDINGS["2.6"][1]
    both = text.replace("Process 4242", "Process 7 has 1.00 GiB memory in use. Process 4242")
    assert 7 * GIB == OutOfMemory.read(both).others
    assert OutOfMemory.read(text.replace("6.00 GiB", "17179869184.00 GiB")).others is None


def test_a_card_that_others_fill_is_first_cleared() -> None:
    """20 MiB short where others hold 31 GiB: half a micro-batch is the second remedy."""
    mukosame = next(said for said in GPU if "Mukosame" in said.where)
    first, *_ = messages.report(mukosame.text).findings
    assert first.change.startswith("first what others hold")
    assert "MiB short, at that moment" == first.unit
    assert first.size == pytest.approx(20 - 14.75)


def test_a_failed_assertion_on_the_gpu_is_no_memory() -> None:
    """Everything fails after it, cuBLAS's start too."""
    said = "CUDA error: device-side assert triggered\nCUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    assert [] == causes(said)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "OSError: [Errno 28] No space left on device: 'checkpoints/model.pt'",
        "the loader uses shared memory; 137 files read",
        "all went well",
        "iter 10: loss 2.3, time 20.0ms",
        "The dragon was killed.",
        "Traceback (most recent call last):\n  File 'x.py', line 1\nValueError: shapes do not match",
    ],
)
def test_what_is_none_of_them_is_said_to_be(text: str) -> None:
    """No guess is made."""
    report = messages.report(text)
    assert () == report.findings
    assert report.headline.startswith("no out-of-memory, no Killed")


def test_mutilated_messages_make_no_traceback() -> None:
    """Cut anywhere, escaped, quoted."""
    dice = random.Random(4)
    texts = [text for text, _ in WORDINGS.values()] + [said.text for said in (*GPU, *MACHINE)]
    for _ in range(300):
        text, other = (dice.choice(texts) for _ in range(2))
        messages.report(mutilated(text, other, dice)).text()


def test_the_command_reads_standard_input() -> None:
    """`… | ganeum doctor message -`, exit status 0, the levers in the text."""
    command = [sys.executable, "-m", "ganeum", "doctor", "message", "-"]
    done = subprocess.run(command, input=WORDINGS["2.6"][0], capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)
    assert "6 GiB of the card are not this process's" in done.stdout
    assert "half the micro-batch and twice the accumulation" in " ".join(done.stdout.split())


def test_a_missing_file_is_our_error() -> None:
    """No traceback, exit status 2."""
    command = [sys.executable, "-m", "ganeum", "doctor", "message", "/not/there.log"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert 2 == done.returncode
    assert done.stderr.startswith("DataError: it cannot be read: No such file or directory\n  where  /not/there.log")
