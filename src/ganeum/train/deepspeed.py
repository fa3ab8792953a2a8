"""Steps by DeepSpeed's engine: ZeRO-2 and 3 in one process, with what they offload in the CPU's memory.

Forward pass, loss and batch are those of :class:`OptimizerStep`; the backward pass, clipping, the update, and the fp32
weights behind half-precision ones are the library's. ``train.zero.stage`` asks for it. Written for DeepSpeed 0.19.8
(deepspeed/runtime/engine.py, deepspeed/runtime/zero/): what it has no public name for is in :class:`EngineState` and
:meth:`EngineStep._forget`.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
import weakref
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ganeum.config import Config
from ganeum.config.schema import Train
from ganeum.config.zero import ENGINE, options
from ganeum.data.batch import Batch
from ganeum.errors import MissingExtra, RunError
from ganeum.hardware import Device
from ganeum.models.network import Network
from ganeum.models.weights import to_file_state
from ganeum.step.optimizer_step import OptimizerStep, StepResult
from ganeum.step.optimizers import FusedAdamW
from ganeum.step.precision import Precision

T = TypeVar("T")
SCALER = ("cur_scale", "cur_iter", "cur_hysteresis", "last_overflow_iter")  # what fp16's loss scale goes by


class Called(nn.Module):
    """The network for the engine: whatever is called inside of it finds the weights that ZeRO-3 has put away."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, function: Callable[..., T], *inputs: Any) -> T:
        return function(*inputs)


class EngineState:
    """What the engine remembers from update to update beside the weights, in the shape of an optimizer's state."""

    def __init__(self, zero: Any, adamw: torch.optim.AdamW, stage: int) -> None:
        self.adamw, self.scaler = adamw, zero.loss_scaler
        # The weights in fp32, group after group, each in one row; the moments lie beside them.
        self.flat = zero.fp32_partitioned_groups_flat if stage == 3 else zero.single_partition_of_fp32_groups

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers only, not copied."""
        scaler = {name: getattr(self.scaler, name) for name in SCALER if hasattr(self.scaler, name)}
        return {"scaler": scaler, "flat": [dict(self.adamw.state[flat]) for flat in self.flat]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        for flat, moments in zip(self.flat, state["flat"], strict=True):
            self.adamw.state[flat] = {key: value.to(flat.device) for key, value in moments.items()}
        for name, value in state["scaler"].items():
            setattr(self.scaler, name, value)


class EngineStep(OptimizerStep):
    """:class:`OptimizerStep` with DeepSpeed's engine at work. An update with a gradient that is not finite is skipped
    by the engine, which waits for the device to know.

    In bf16 and fp16 the weights are computed with in that precision, and so are gradients and their sums; behind them
    lie weights in fp32, which checkpoints hold.
    """

    def __init__(
        self,
        model: Network,
        train: Train,
        device: torch.device | str,
        *,
        precision: Precision = "fp32",
        loss_chunk: int | None = None,
    ) -> None:
        """
        Args:
            model: in fp32 on the CPU; the engine takes it to the device, in stage 3 weight by weight.
        """
        deepspeed = connected(torch.device(device))
        # The offload is the engine's own; a plain AdamW is what it wants to be given.
        own = train.model_copy(update={"optimizer_offload": False})
        super().__init__(model, own, device, precision=precision, loss_chunk=loss_chunk)
        adamw = self.optimizer.parts["adamw"]
        assert isinstance(adamw, FusedAdamW), "no other optimizer gets here"
        self.rates = adamw.rates
        self.frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
        exact = {} if precision in ("fp32", "tf32") else {p: p.detach().clone() for p in self.parameters}
        largest = max(p.numel() for p in self.parameters)
        config, called = told(train, precision, largest), Called(model)
        if train.zero.stage == 3:  # else all of it would be on the device at once
            deepspeed.zero.Init(module=called, config_dict_or_path=config)
        self.engine, *_ = deepspeed.initialize(model=called, optimizer=adamw.adamw, config=config)
        self.zero = self.engine.optimizer
        weakref.finalize(self, ended, self.engine).atexit = False
        for parameter, value in exact.items():  # what it has in fp32 it made of rounded ones
            deepspeed.utils.safe_set_full_fp32_param(parameter, value.to(self.device))
        self.loss_scale.fill_(self.zero.loss_scale)
        self.optimizer = EngineState(self.zero, adamw.adamw, train.zero.stage)  # type: ignore[assignment]

    def __call__(self, micro_batches: Iterable[Batch], **settings: Any) -> StepResult:
        try:
            return super().__call__(micro_batches, **settings)
        except BaseException:  # out of memory, an interruption: the next attempt begins with nothing
            self._forget()
            raise

    @torch.no_grad()
    def token_nats(self, batch: Batch) -> Tensor:
        return self.inside(super().token_nats, batch)

    @torch.no_grad()
    def inside(self, function: Callable[..., T], *inputs: Any) -> T:
        found: list[T] = []
        try:
            self.engine(lambda: found.append(function(*inputs)))  # it looks for tensors in whatever is returned
        except BaseException:
            self._forget()
            raise
        return found[0]

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param as whole

        held = {name: p.data for name, p in self.model.named_parameters()}
        try:
            for name, parameter in self.model.named_parameters():
                parameter.data = self.frozen[name] if name in self.frozen else whole(parameter).cpu()
            return to_file_state(self.model)
        finally:
            for name, parameter in self.model.named_parameters():
                parameter.data = held[name]

    def _loss(self, batch: Batch, targets: int) -> Tensor:
        loss: Tensor = self.engine(super()._loss, batch, targets)
        return loss

    def _backward(self, loss: Tensor) -> None:
        self.engine.backward(loss / self.loss_scale)  # which it multiplies by itself

    def _update(self, step: int, learning_rate: float, loss: Tensor) -> Tensor:
        for group, rate in zip(self.zero.param_groups, self.rates, strict=True):
            group["lr"] = learning_rate * rate
        try:
            self.engine.step()
        except Exception as error:
            if "loss scale already at minimum" not in str(error):
                raise
            raise RunError(
                f"the gradient overflows fp16 at every loss scale down to {self.zero.loss_scale:g}",
                where=f"step {step + 1:,}",
                why="DeepSpeed does not lower it below fp16.min_loss_scale",
                suggestion="train.precision: bf16, or a lower train.learning_rate, under another name",
            ) from None
        bad = torch.tensor(bool(self.zero.overflow), device=self.device)
        self._remember(step, bad, loss)
        self.loss_scale.fill_(self.zero.loss_scale)
        return torch.as_tensor(float(self.engine.get_global_grad_norm()), device=self.device)

    def _forget(self) -> None:
        """What a step that was not finished had summed up or gathered."""
        from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

        zero, third = self.zero, self.train.zero.stage == 3
        FWD_MODULE_STACK.clear()
        zero._backward_hook_state.backward_active_depth = 0
        zero._backward_hook_state.reset_for_new_step()
        self.engine._unmanaged_backward_count = 0
        reduced = zero.params_already_reduced
        for key in list(reduced) if third else range(len(reduced)):
            reduced[key] = False
        for bucket in zero.ipg_buckets.values():
            bucket.clear_params() if third else bucket.clear()
        if third:
            zero._partition_all_parameters()
            zero.parameter_offload.get_param_coordinator().reset_step()
            zero._pre_step()
        else:
            zero._release_ipg_buffers()
            zero.micro_step_id = -1
            zero._offload_accumulated_param_ids = set()
            for key in zero.averaged_gradients:
                zero.averaged_gradients[key] = None
            for key in zero.all_grad_tensors:
                zero.all_grad_tensors[key] = None
        zero.reset_cpu_buffers()
        self.model.zero_grad(set_to_none=True)  # before the engine's, which in stage 3 knows gradients of GPUs alone
        zero.zero_grad(set_to_none=True)


def ended(engine: Any) -> None:
    """Lets go of its memory: weights and engine hold each other where Python's collector cannot see, and a list and a
    cache of the library's hold stage 3's network, of which empty weights are left."""
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    zero, adamw = engine.optimizer, engine.optimizer.optimizer
    engine.destroy()
    FWD_MODULE_STACK.clear()
    for holder in (zero, adamw):
        vars(holder).clear()
    for parameter in engine.module.parameters():
        if hasattr(parameter, "ds_tensor"):
            parameter.data = torch.empty(0)
        vars(parameter).clear()


def told(train: Train, precision: Precision, largest: int) -> dict[str, Any]:
    """What DeepSpeed is told: its config with no `auto` left.

    Args:
        largest: numbers in the largest weight: what buckets hold that the config says nothing of, as in the plan.
    """
    said = options(train.zero.options)
    bucket = largest + largest % 2  # it refuses one that begins at an odd number
    zero: dict[str, Any] = {
        "stage": train.zero.stage,
        "overlap_comm": False,  # nobody is talked to
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if train.zero.stage == 3:
        zero |= {"stage3_max_live_parameters": largest, "stage3_max_reuse_distance": largest}
    zero |= said.get("zero_optimization", {})
    for name, wanted in (("offload_optimizer", train.optimizer_offload), ("offload_param", train.zero.weights_offload)):
        pinned = zero.pop(name, {})
        if wanted:
            zero[name] = {"device": "cpu", **pinned}
    return {
        # The step hands it micro-batches of any size and number, whose losses are shares of the whole batch already.
        "train_batch_size": 1,
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": train.grad_clip,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
        "fp16": {"enabled": precision == "fp16", **said.get("fp16", {})},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # it would be compiled first
    }


def check(config: Config, device: Device) -> None:
    """Before anything is made: whether the engine can take this run's steps on ``device``.

    Raises:
        MissingExtra: DeepSpeed is not installed.
        RunError: there are several processes, or the engine does not compute in this precision there.
    """
    if config.train.zero.stage < ENGINE:
        return
    if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise RunError(
            f"a run is one process on one device, but {processes} were started",
            where="WORLD_SIZE in the environment",
            suggestion="deepspeed --num_gpus 1 train.py …, or ganeum train …",
        )
    if device.kind == "cpu" and config.train.precision == "fp16" and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        raise RunError(
            "DeepSpeed's engine does not compute in fp16 on this CPU",
            where="train.precision",
            why="its instructions have no fp16",
            suggestion="train.precision: auto",
        )
    if find_spec("deepspeed") is None:
        raise MissingExtra(
            f"train.zero.stage={config.train.zero.stage} needs the package deepspeed",
            suggestion="pip install 'ganeum[deepspeed]', or train.zero.stage=0 for ganeum's own step",
        )


def connected(device: torch.device) -> Any:
    """The library, with this process alone as its group."""
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    os.environ["DS_ACCELERATOR"] = device.type
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed.c10d_logger")
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    if (loaded := get_accelerator().device_name()) != device.type:
        raise RunError(
            f"DeepSpeed was loaded for {loaded} in this process, and cannot change to {device.type}",
            suggestion="another process",
        )
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it tells of every update that is skipped
    if not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        atexit.register(distributed.destroy_process_group)
    # It shares memory between processes on a CPU; compiling it takes minutes, and here is one process.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(auto_mpi_discovery=False)
    return deepspeed
