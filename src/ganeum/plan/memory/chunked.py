"""The loss of a step of ours (step/loss.py): a chunk of rows at a time, so that never all logits are there."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory.replay import Tape, Tensor


@dataclass(frozen=True)
class ChunkedLoss:
    """Of N rows of hidden states (N, C) and an output layer of V rows.

    Attributes:
        held: bytes of a number of the weights; ``wide``: of one in products.
        trained: whether the output layer is.
        chunk: rows at one time.
        before_softmax: bytes of the copies of logits that softmax makes. Logits in two bytes are copied to fp32; CUDA's
            kernel reads those in fp16 as they are, and no others (aten/src/ATen/native/SoftMax.cpp).
    """

    tape: Tape
    N: int
    C: int
    V: int
    held: float
    wide: float
    trained: bool
    chunk: int
    cpu: bool
    before_softmax: int

    @staticmethod
    def of(tape: Tape, architecture: Architecture, execution: Execution) -> ChunkedLoss:
        """Of what ``execution`` runs at once."""
        N, cpu = execution.micro_batch_size * execution.length, execution.kind == "cpu"
        held = 4 if execution.weights == "fp32" else 2
        wide = 2 if execution.half else held
        return ChunkedLoss(
            tape,
            N,
            architecture.width,
            max(architecture.rows, architecture.head.outputs),
            held,
            wide,
            execution.lora.rank is None,
            min(execution.loss_chunk or N, N),
            cpu,
            0 if wide == 4 or (not cpu and execution.precision == "fp16") else 4,
        )

    def gradients(self, wide_hidden: float) -> tuple[Tensor, Tensor | None]:
        """Both gradients, made on the way: of the hidden states, in their format, and of the output layer."""
        tape, C, V, wide, half = self.tape, self.C, self.V, self.wide, self.wide < 4
        weight = tape.tensor("copies", V * C, 2) if wide < self.held else None
        d_hidden = tape.tensor("workspace", self.N * C, wide_hidden)
        d_weight = tape.tensor("gradients", V * C, 4) if self.trained else None
        for rows, rows_before in self.chunks():
            h = tape.tensor("logits", rows * C, wide if wide < wide_hidden else 0)
            before = tape.tensor("logits", rows_before * V, 4 + 2 * half)
            logits = [tape.tensor("logits", rows * V, wide), tape.tensor("logits", rows * V, self.before_softmax)]
            p = tape.tensor("logits", rows * V, 4)
            del before, logits
            d = tape.tensor("logits", rows * V, 2 * half)
            tape.tensor("logits", rows * C, wide + 4 + 4 * half * self.cpu)
            if self.trained:
                share = tape.tensor("logits", rows * C, wide)
                tape.tensor("gradients", V * C, wide + 4 * half * self.cpu)
                del share
            del p, d, h
        if d_weight and self.held < 4:
            d_weight = tape.tensor("gradients", V * C, self.held)
        del weight
        return d_hidden, d_weight

    def nats(self) -> None:
        """The evaluation's form of the loss."""
        tape, V = self.tape, self.V
        weight = tape.tensor("copies", V * self.C, 2) if self.wide < self.held else None
        nats = tape.tensor("logits", self.N, 4)
        for rows, rows_before in self.chunks():
            before = tape.tensor("logits", rows_before * V, 4)
            tape.tensor("logits", rows * V, self.wide + self.before_softmax + 4)
            del before
        del weight, nats

    def chunks(self) -> list[tuple[int, int]]:
        """Rows of the first chunk and of the second, which no later one outdoes, each with those of the chunk before:
        its numbers are let go of only when the next one's are there."""
        rows = min(self.chunk, self.N)
        rest = min(self.N - rows, rows)
        return [(rows, 0), (rest, rows)] if rest else [(rows, 0)]
