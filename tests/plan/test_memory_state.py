"""Weights, gradients and optimizer state against published arithmetic and against the real optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ganeum.config.schema import Lora, Model
from ganeum.plan.architecture import Architecture, find, from_config_json, ours
from ganeum.plan.execution import Execution
from ganeum.plan.memory import state

GPT2 = find("gpt2")
N = 124_439_808  # of GPT-2 small, as transformers counts it


def bytes_of(architecture: Architecture = GPT2, **how: Any) -> state.State:
    return state.of(architecture, Execution(**how))


def test_sixteen_bytes_a_weight_under_adamw() -> None:
    """4 for the weight, 4 for its gradient, 8 for two moments (Rajbhandari et al. 2020, section 3.1, in fp32)."""
    found = bytes_of(precision="fp32")
    assert (found.weights, found.gradients, found.optimizer, found.update) == (4 * N, 4 * N, 8 * N, 0)


@pytest.mark.parametrize(
    ("name", "count"),
    [("t5-small", 60_506_624), ("qwen3-0.6b", 596_049_920), ("codegen-350M-mono", 356_712_448)],
)
def test_every_tensor_is_there_once(name: str, count: int) -> None:
    """As many numbers as the published models have."""
    assert sum(weight.size for weight in state.weights(find(name))) == count


def zero(stage: int, devices: int, **how: Any) -> state.State:
    """Of T5 3B, the example of DeepSpeed's own page (docs/code-docs/source/memory.rst): its GB are 2**30 bytes."""
    return bytes_of(find("t5-3b"), zero_stage=stage, devices=devices, precision="fp16", **how)


def test_zero_2_on_one_device_is_what_deepspeed_says() -> None:
    """4 + 16 bytes a weight: estimate_zero2_model_states_mem_needs without offload; gradients in fp32 counted."""
    found = zero(2, 1)
    total = sum(weight.size for weight in state.weights(find("t5-3b")))
    assert found.weights + found.gradients + found.optimizer + found.update == pytest.approx(20 * total)


def test_zero_2_shares_gradients_too_which_deepspeed_counts_whole() -> None:
    """2 + 14 / 8 bytes a weight in the backward pass (Rajbhandari et al. 2020, section 5.2), and 4 / 8 more in the
    update: less than DeepSpeed's cautious 4 + 16 / 8."""
    found, total = zero(2, 8), sum(weight.size for weight in state.weights(find("t5-3b")))
    assert found.weights + found.gradients + found.optimizer == pytest.approx((2 + 14 / 8) * total)
    assert found.update == pytest.approx(4 / 8 * total)


def test_zero_1_shares_the_optimizer_alone() -> None:
    """4 + 12 / 64 bytes a weight: the paper's own 7.5 billion parameters on 64 devices take 31.4 GB (figure 1)."""
    found, total = zero(1, 64), sum(weight.size for weight in state.weights(find("t5-3b")))
    assert (found.weights + found.gradients + found.optimizer) / total * 7.5 == pytest.approx(31.4, abs=0.02)


def test_zero_3_is_what_deepspeed_says() -> None:
    """18 / 8 bytes a weight and 4 for each of the largest layer: estimate_zero3_model_states_mem_needs, 6.10 GB for
    t5-3b, here at the update, where gradients are in fp32."""
    found = zero(3, 8)
    assert (found.weights + found.gradients + found.optimizer + found.update) / 2**30 == pytest.approx(6.10, abs=0.02)


def test_offloaded_zero_2_leaves_the_half_precision_weights() -> None:
    """2 bytes a weight, 5.31 GB for t5-3b, and the largest gradient on its way (32,128 × 1,024 in two bytes)."""
    found = zero(2, 8, offload="optimizer")
    assert found.weights / 2**30 == pytest.approx(5.31, abs=0.01)
    assert found.gradients == 2 * 32_128 * 1_024
    assert found.optimizer + found.update == 0


def test_offloaded_zero_3_leaves_one_layer() -> None:
    """0.12 GB for t5-3b; the CPU holds 18 bytes a weight, as DeepSpeed says before its factor of 1.5 (71.71 / 1.5)."""
    found = zero(3, 8, offload="optimizer_and_weights")
    assert (found.weights + found.gradients + found.optimizer) / 2**30 == pytest.approx(0.12, abs=0.005)
    assert found.host / 2**30 == pytest.approx(71.71 / 1.5, rel=1e-3)


def test_qlora_takes_half_a_byte_a_weight() -> None:
    """0.127 bits a weight for the constants of NF4 quantized twice (Dettmers et al. 2023, section 3)."""
    assert state.NF4 * 8 == pytest.approx(4.127, abs=5e-4)
    llama = find("llama-2-7b")
    found = state.of(llama, Execution(weights="nf4", lora=Lora(rank=64)))
    matrices = 6_476_005_376  # 32 × (4 × 4,096² + 3 × 4,096 × 11,008)
    other, adapters = 6_738_415_616 - matrices, 159_907_840  # rank 64 on all seven matrices, as peft counts them
    assert found.weights == pytest.approx(matrices * state.NF4 + 2 * other + 4 * adapters)
    assert (found.gradients, found.optimizer) == (4 * adapters, 8 * adapters)


def test_int8_has_a_scale_for_each_row() -> None:
    """bitsandbytes keeps a statistic in fp32 for each output of a matrix (arXiv 2208.07339)."""
    weight = state.Weight("matrix", (11_008, 4_096))
    assert state.weight_bytes(weight, Execution(weights="int8")) * weight.size == weight.size + 4 * 11_008


def real(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if name == "adafactor":
        return transformers.Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    return torch.optim.AdamW(parameters, lr=1e-3)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["adamw", "adafactor", "sgd"])
def test_state_is_what_the_optimizer_of_the_trainer_holds(name: str, weights: str) -> None:
    """Bytes of a small T5's state after an update, but for those of its two small tables of positions."""
    config = transformers.T5Config(d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, vocab_size=500)
    dtype = torch.float32 if weights == "fp32" else torch.bfloat16
    parameters = list(transformers.T5ForConditionalGeneration(config).to(dtype).parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = real(name, parameters)
    optimizer.step()
    held = [v for of in optimizer.state.values() for v in of.values() if isinstance(v, Tensor) and v.numel() > 1]
    architecture = from_config_json(config.to_dict(), name="small", source="here")
    found = bytes_of(architecture, optimizer=name, weights=weights, momentum=0.9)
    assert found.optimizer == pytest.approx(sum(value.nbytes for value in held), abs=1_000)
    assert found.weights == sum(parameter.nbytes for parameter in parameters)


def test_8_bit_state_spares_embeddings_and_small_weights() -> None:
    """2 bytes and two scales in fp32 for every 256; the Trainer keeps embeddings in 32 bits, and bitsandbytes
    whatever has fewer than 4,096 numbers."""
    tables, vectors = 50_257 * 768 + 1_024 * 768, 12 * (768 * 8 + 3_072 + 2_304 - 768 * 2) + 2 * 768
    small = vectors  # every bias and norm of GPT-2 small has at most 3,072 numbers
    assert bytes_of(optimizer="adamw8bit").optimizer == pytest.approx(
        8 * (tables + small) + (2 + 8 / 256) * (N - tables - small)
    )


def test_muon_keeps_one_moment_of_matrices() -> None:
    """And AdamW's two of embeddings, biases and norms."""
    model = Model(n_layer=2, n_head=2, n_embd=64, block_size=32, vocab_size=128, bias=False)
    matrices, rest = 2 * 12 * 64 * 64, (128 + 32) * 64 + 5 * 64
    assert bytes_of(ours.architecture(model), optimizer="muon").optimizer == 4 * matrices + 8 * rest


def test_ours_is_offloaded_without_deepspeed() -> None:
    """The optimizer's state alone goes to the CPU."""
    model = Model(n_layer=2, n_head=2, n_embd=64, block_size=32, vocab_size=128)
    plain, away = (bytes_of(ours.architecture(model), offload=where) for where in ("none", "optimizer"))
    assert (away.weights, away.gradients, away.optimizer, away.host) == (
        plain.weights,
        plain.gradients,
        0,
        plain.optimizer,
    )


def test_only_training_holds_gradients() -> None:
    """An evaluation in a run keeps the optimizer's state, inference the weights alone."""
    evaluation, inference = bytes_of(purpose="evaluation"), bytes_of(purpose="inference")
    assert (evaluation.gradients, evaluation.optimizer) == (0, 8 * N)
    assert (inference.weights, inference.gradients, inference.optimizer) == (4 * N, 0, 0)
