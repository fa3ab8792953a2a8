"""The moments of a step, and which of them is the fullest."""

from __future__ import annotations

from ganeum import units
from ganeum.hardware.device import Kind
from ganeum.hardware.machine import CUDA_CONTEXT_GIB
from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory import generation, state, transformers, update
from ganeum.plan.memory.ours import OurGPT, buffers
from ganeum.plan.memory.parts import Memory
from ganeum.plan.memory.replay import Ledger, Tape

# What allocators lose between tensors and hold for later, of what tensors take: on a CPU as seen in 24 steps, where
# Muon left up to 28 % and everything else up to 18, on a GPU as in a model of torch's caching allocator, 0.5 to 10 %
# (docs/memory_plan.md).
UNUSABLE: dict[Kind, float] = {"cpu": 0.30, "cuda": 0.10, "mps": 0.20}

# A process on a CPU beside all tensors: torch's optimizers and kernels once they are used, and libraries of extras.
# Small runs took 110 to 175 MiB of the first, 233 to 266 with LoRA, 176 with 8-bit state: half is what none goes below.
# What peft brings is transformers, which a run of an adopted model has already: three of them took no more with LoRA.
# Rows of examples have many shapes, and with them a process grows: a small T5's by 170 and 200 MiB in 40 and 74 steps,
# another's by 46 in 300 and one's with rows of one length by 22: it may be nothing.
FRAMEWORK, PEFT, TORCHAO, SHAPES = 190.0 * 2**20, 130.0 * 2**20, 60.0 * 2**20, 180.0 * 2**20
FRAMEWORK_LEAST = 0.5

# cuBLAS has one workspace for the thread of the forward pass and one for that of the backward pass, in torch's own
# allocator: 2 × 4,096 and 8 × 16 KiB (:4096:2:16:8, aten/src/ATen/cuda/CublasHandlePool.cpp), and in our runs, which
# set CUBLAS_WORKSPACE_CONFIG=:4096:8 for a fixed order of sums (train/start.py), 8 × 4,096.
OURS = 8 * 4096 * 1024.0
CUBLAS = {"ganeum": OURS, "adopted": OURS, "transformers": (2 * 4096 + 8 * 16) * 1024.0}


def of(architecture: Architecture, execution: Execution) -> Memory:
    """The memory of ``architecture`` run as ``execution`` says.

    A step is gone through operation by operation, with tensors that have a size and nothing else
    (:mod:`ganeum.plan.memory.replay`).
    """
    if architecture.implementation == "ganeum":
        parts, at = _of_ours(architecture, execution)
    elif execution.purpose == "generation":
        parts, at = generation.fullest(architecture, execution)
    else:
        parts, at = transformers.fullest(architecture, execution)
    if execution.kind == "cuda":
        passes = 2 if execution.purpose == "training" else 1
        parts["workspace"] = parts.get("workspace", 0.0) + passes * CUBLAS[architecture.implementation]
    expected, framework = sum(parts.values()), _framework(architecture, execution)
    shapes = SHAPES if architecture.implementation == "adopted" and execution.kind == "cpu" else 0.0
    return Memory(
        parts,
        at,
        low=expected - parts.get("workspace", 0.0),
        high=expected * (1 + UNUSABLE[execution.kind]),
        framework=framework + shapes,
        framework_low=FRAMEWORK_LEAST * framework,
        context=CUDA_CONTEXT_GIB * units.GIB if execution.kind == "cuda" else 0.0,
    )


def _of_ours(architecture: Architecture, execution: Execution) -> tuple[dict[str, float], str]:
    """Bytes by part at the fullest moment, and its name: the last micro-batch's passes, and the update."""
    held, training = state.of(architecture, execution), execution.purpose == "training"
    ledger, accumulating = Ledger(), training and execution.accumulation > 1
    ledger.take("weights", held.weights + buffers(architecture))
    ledger.take("optimizer", held.optimizer)
    if accumulating:
        ledger.take("gradients", held.gradients)
    if execution.purpose == "generation":
        ledger.take("cache", generation.cache_bytes(architecture, execution))
    tape = Tape(ledger, recording=training, accumulating=accumulating, widens=execution.kind == "cpu")
    OurGPT(architecture, execution, tape).step()
    if training:
        ledger.moment = "update"
        needed = update.of(architecture, execution)
        ledger.take("update", needed)
        ledger.give("update", needed)
    return {name: size for name, size in ledger.fullest.items() if size > 0}, ledger.at


def _framework(architecture: Architecture, execution: Execution) -> float:
    """What a process on a CPU holds beside tensors; on a GPU its code lies elsewhere."""
    if execution.kind != "cpu":
        return 0.0
    brings_peft = execution.lora.rank is not None and architecture.implementation != "adopted"
    extras = PEFT * brings_peft + TORCHAO * (execution.optimizer == "adamw8bit")
    return FRAMEWORK + extras
