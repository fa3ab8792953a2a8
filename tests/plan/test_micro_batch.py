"""How many sequences at once in an evaluation."""

from __future__ import annotations

from ganeum.config.schema import Config, Model, Train
from ganeum.hardware.device import Device
from ganeum.plan import fastest, micro_batch


def config(batch_size: int, **model: object) -> Config:
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "vocab_size": 50_257}
    return Config(model=Model(**shape | model), train=Train(batch_size=batch_size, activation_checkpointing="none"))  # type: ignore[arg-type]


def gpu(usable_gib: float) -> Device:
    return Device("a GPU", "cuda", memory_gib=usable_gib, usable_gib=usable_gib, capability=(8, 0))


CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)


def test_an_evaluation_takes_more_sequences_than_a_step() -> None:
    """Where memory bounds the micro-batch of a large model, an evaluation takes a multiple of it that fits; a CPU, busy
    with 4,096 tokens, takes as many as in training."""
    run = config(64)
    size = fastest.choose(run, gpu(4))[0]["train.micro_batch_size"]
    settled = run.model_copy(update={"train": run.train.model_copy(update={"micro_batch_size": size})})
    more, reason = micro_batch.choose_for_evaluation(settled, gpu(4))
    assert more > size
    assert more % size == 0
    assert reason.startswith(f"{more // size} times the micro-batch, without a backward pass: about ")
    assert micro_batch.needed_to_evaluate(settled, gpu(4), more).high <= 4 * 2**30
    small = config(64, n_layer=1)
    settled = small.model_copy(update={"train": small.train.model_copy(update={"micro_batch_size": 4})})
    assert (4, "as training: more bring no speed") == micro_batch.choose_for_evaluation(settled, CPU)
