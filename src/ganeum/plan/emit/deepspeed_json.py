"""A DeepSpeed config as JSON: the batch, the precision, ZeRO's stage and what is offloaded, as planned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ganeum.config.batch import divisors
from ganeum.config.schema import Config
from ganeum.errors import ConfigError
from ganeum.plan import execution
from ganeum.plan.architecture import configured
from ganeum.plan.emit.settled import settled
from ganeum.plan.execution import Offload
from ganeum.plan.memory import state

EVEN = 2  # DeepSpeed refuses a bucket that does not begin where NCCL likes numbers to: at every second one


def deepspeed(
    config: Config,
    plan: Mapping[str, Any],
    *,
    devices: int = 1,
    zero_stage: int | None = None,
    offload: Offload | None = None,
    largest: int | None = None,
) -> str:
    """The JSON, as `deepspeed.initialize` and TrainingArguments' `deepspeed` take it.

    Args:
        plan: of ``config``: its choices are the values where the config says ``auto``.
        devices: GPUs that share the batch; each takes ``micro_batch_size`` at once, or what is its share of the batch.
        zero_stage: what is shared out; None: the lowest that carries the offload, and 2 (state and gradients, at no
            more traffic than plain data parallelism: Rajbhandari et al. 2020, arXiv 1910.02054, section 7) on several.
        offload: None: as ``config`` says.
        largest: numbers in the largest weight that is trained; None: in that of ``config``'s own model.

    Raises:
        ConfigError: the batch cannot be shared out equally.
    """
    final, _ = settled(config, plan)
    train, at_once = final.train, final.train.micro_batch_size
    assert isinstance(at_once, int), "a plan has chosen it"
    offload = offload or execution.offload(train)
    stage = {"none": 0 if devices == 1 else 2, "optimizer": 2, "optimizer_and_weights": 3}[offload]
    stage = max(stage, execution.zero_stage(train))
    if train.batch_size % devices:
        raise ConfigError(
            f"train.batch_size is {train.batch_size}, which {devices} GPUs cannot share equally",
            where="--emit deepspeed",
            why="DeepSpeed wants micro-batch × accumulation × GPUs to be the batch",
            suggestion=f"train.batch_size={-(-train.batch_size // devices) * devices}",
        )
    if largest is None:
        largest = state.largest(configured.of(final, plan["model"]["vocab_size"]), train.lora)
    share = train.batch_size // devices
    micro = max(size for size in divisors(share) if size <= at_once)
    precision = plan["device"]["precision"] if train.precision == "auto" else train.precision
    written: dict[str, Any] = {
        "train_batch_size": train.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_clipping": train.grad_clip,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": _zero(stage if zero_stage is None else zero_stage, offload, largest),
    }
    if train.optimizer == "adamw":
        options = {
            "lr": train.learning_rate,
            "betas": [train.beta1, train.beta2],
            "weight_decay": train.weight_decay,
        }
        written["optimizer"] = {"type": "AdamW", "params": options}
    else:  # the one that the training script brings
        written |= {"zero_allow_untested_optimizer": True}
        if offload != "none":
            written |= {"zero_force_ds_cpu_optimizer": False}
    return json.dumps(written, indent=2) + "\n"


def _zero(stage: int, offload: Offload, largest: int) -> dict[str, Any]:
    """ZeRO's section, with buckets that are together no more than the largest weight, as memory/state.py counts them.

    Untold, DeepSpeed takes 500 million numbers for each, and two where it overlaps in stages 1 and 2; in stage 3 it
    keeps gathered weights of up to 10⁹ numbers, and gathers as many ahead.
    """
    zero: dict[str, Any] = {"stage": stage}
    if stage >= 1:
        bucket = largest if stage == 3 else max(EVEN, largest // 2 // EVEN * EVEN)
        zero |= {"overlap_comm": True, "contiguous_gradients": True}
        zero |= {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if stage == 3:
        zero |= {"stage3_max_live_parameters": largest, "stage3_max_reuse_distance": largest}
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload == "optimizer_and_weights":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return zero
