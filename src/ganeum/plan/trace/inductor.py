"""torch.compile for a GPU that is not there: Inductor lowers, fuses and plans memory for it; no kernel is made.

Everything that decides about memory is torch's own: what the forward pass keeps for the backward pass (the
partitioner), which operations become one kernel, which buffers are used twice. Replaced is only what needs the card:
its properties are those of the catalogue, a Triton kernel becomes a call that does nothing, and an allocation of the
generated code becomes one of fake tensors, so that the recorder sees it.

Three things differ from a run: on a GPU Inductor measures whether padding a product to the tensor cores' alignment pays
(here it always does, where arithmetic bounds the product: :data:`ASSUMED`), constants are not folded, and autotuning,
which needs memory while it measures, takes none.
"""

from __future__ import annotations

import contextlib
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ganeum.errors import DeviceError
from ganeum.hardware.device import Device
from ganeum.plan.trace.fake_cuda import Card

ASSUMED = "torch.compile measures on the GPU which products to pad; they were taken to be padded where it could pay"
OLDEST = (7, 0)  # Triton's


def properties(card: Device) -> types.SimpleNamespace:
    """What torch's driver query would answer for it, as far as Inductor asks."""
    known = Card.of(card)
    major, minor = known.capability
    return types.SimpleNamespace(
        name=card.name,
        major=major,
        minor=minor,
        total_memory=known.memory_bytes,
        multi_processor_count=known.multiprocessors,
        # CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
        regs_per_multiprocessor=65_536,
        max_threads_per_multi_processor={(7, 5): 1_024, (8, 6): 1_536, (8, 9): 1_536}.get((major, minor), 2_048),
        max_threads_per_block=1_024,
        warp_size=32,
        shared_memory_per_block=49_152,
        shared_memory_per_block_optin=101_376 if (major, minor) in ((8, 6), (8, 9)) else 166_912,
        L2_cache_size=40 * 2**20,
        gcnArchName="",
    )


@contextlib.contextmanager
def compiling_for(card: Device, launched: Callable[..., None] = lambda *arguments: None) -> Iterator[None]:
    """Within, ``torch.compile`` compiles for ``card``, under fake tensors on ``cuda``; afterwards torch is as it was.

    Args:
        launched: is called for each kernel of Inductor's with what it would read and write.

    Raises:
        DeviceError: the card is older than Triton's kernels, as training on it would say.
    """
    capability = card.capability or (8, 0)
    if capability < OLDEST:
        raise DeviceError(
            f"torch.compile makes no kernels for {card.name}",
            where=f"compute capability {capability[0]}.{capability[1]}",
            why="Triton's kernels need 7.0 or later",
            suggestion="train.compile: false",
        )
    # All imported before anything is replaced, so that none of them keeps a replacement.
    import torch._inductor.async_compile
    import torch._inductor.compile_fx
    import torch._inductor.fx_passes.pad_mm
    import torch._inductor.scheduler
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    torch._dynamo.reset()
    with (
        contextlib.ExitStack() as replaced,
        inductor.patch(
            {
                "compile_threads": 1,
                "fx_graph_cache": False,
                "fx_graph_remote_cache": False,
                "joint_graph_constant_folding": False,  # would compute them, on the card
                "triton.cudagraphs": False,
                "max_autotune": False,
            }
        ),
        # What is computed twice begins with the random state that it had: a generator's, of which there is none here,
        # or its numbers, on the CPU. Neither takes memory on the card.
        functorch.patch(enable_autograd_cache=False, graphsafe_rng_functionalization=False),
        warnings.catch_warnings(),
    ):
        # Generated code checks its inputs' alignment, which a fake tensor answers with a warning.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        replace = _Replace(replaced)
        _card(replace, properties(card))
        _kernels(replace, launched)
        yield
    torch._dynamo.reset()


class _Replace:
    """Sets attributes until the stack is closed."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack

    def __call__(self, owner: Any, **values: Any) -> None:
        for name, value in values.items():
            if name in vars(owner):
                self.stack.callback(setattr, owner, name, vars(owner)[name])
            else:
                self.stack.callback(delattr, owner, name)
            setattr(owner, name, value)


def _card(replace: _Replace, found: types.SimpleNamespace) -> None:
    """torch asks for one card, and hears of ``found``."""
    from torch._dynamo import device_interface
    from torch._subclasses import FakeTensorMode

    capability = (found.major, found.minor)
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "get_device_properties": lambda device=None: found,
        "get_device_capability": lambda device=None: capability,
        "get_device_name": lambda device=None: found.name,
        "get_arch_list": lambda: [f"sm_{found.major}{found.minor}"],
        "is_bf16_supported": lambda including_emulation=True: capability >= (8, 0) or including_emulation,
        "synchronize": lambda device=None: None,
        "memory_allocated": lambda device=None: 0,
        "mem_get_info": lambda device=None: (found.total_memory, found.total_memory),
        "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8, device="cpu"),
        "set_rng_state": lambda state, device="cuda": None,
        "current_stream": lambda device=None: types.SimpleNamespace(
            cuda_stream=0, stream_id=0, device_index=0, device_type=1
        ),
    }
    replace(torch.cuda, **answers)
    # Fake tensors would otherwise take the card for one that can be used, and ask it for constants.
    replace(FakeTensorMode, avoid_device_init=property(lambda self: True))

    class Worker:
        get_device_properties = staticmethod(answers["get_device_properties"])
        current_device = staticmethod(answers["current_device"])
        set_device = staticmethod(answers["set_device"])

    class Interface(device_interface.CudaInterface):
        get_raw_stream = staticmethod(lambda index: 0)
        get_compute_capability = staticmethod(lambda device=None: 10 * found.major + found.minor)
        is_triton_capable = staticmethod(lambda device=None: True)
        raise_if_triton_unavailable = staticmethod(lambda device=None: None)

    for name in ("is_available", "current_device", "device_count", "set_device", "synchronize", "memory_allocated"):
        setattr(Interface, name, staticmethod(answers[name]))
    Interface.get_device_properties = staticmethod(answers["get_device_properties"])
    Interface.exchange_device = staticmethod(answers["_exchange_device"])
    Interface.maybe_exchange_device = staticmethod(answers["_maybe_exchange_device"])
    Interface.is_bf16_supported = staticmethod(answers["is_bf16_supported"])
    Interface.Worker = Worker  # type: ignore[assignment,misc]
    device_interface.get_interface_for_device("cpu")  # registers all of them
    known = device_interface.device_interfaces
    for name in ("cuda", "cuda:0"):
        if name in known:
            replace.stack.callback(known.__setitem__, name, known[name])
        else:
            replace.stack.callback(known.pop, name)
        known[name] = Interface


class _Silent:
    """Stands where a compiled kernel would: it only says that it was to run."""

    def __init__(self, launched: Callable[..., None]) -> None:
        self.launched = launched

    def run(self, *arguments: Any, **_: Any) -> None:
        self.launched(*arguments)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def _kernels(replace: _Replace, launched: Callable[..., None]) -> None:
    """Triton is there, as far as Inductor asks; kernels are silent, and allocations of generated code are seen."""
    from torch._C._dynamo import guards
    from torch._inductor import async_compile, scheduler, utils
    from torch._inductor.codegen.wrapper import PythonWrapperCodegen
    from torch._inductor.fx_passes import pad_mm
    from torch.utils import _triton

    replace(_triton, triton_hash_with_backend=lambda *args, **kwargs: "", triton_backend=lambda: None)
    replace(scheduler, has_triton=lambda: True)
    replace(pad_mm, has_triton=lambda: True, _should_pad=_pays)
    replace(
        async_compile.AsyncCompile,
        triton=lambda self, *args, **kwargs: _Silent(launched),
        wait=lambda self, scope: None,
    )
    # The generated code's first lines import triton, which a machine without a GPU may lack.
    replace(PythonWrapperCodegen, write_triton_header_once=PythonWrapperCodegen.write_get_raw_stream_header_once)
    replace(guards, _empty_strided_cuda=_empty, _reinterpret_tensor=_reinterpret)
    # Generated code asks for the stream to run in: a build for CPUs lacks the function, one with CUDA asks the driver.
    replace(torch._C, _cuda_getCurrentRawStream=lambda index: 0)
    replace(torch.ops.higher_order, run_and_save_rng_state=_first, run_with_rng_state=_again)
    replace(utils, get_gpu_dram_gbps=lambda: 1_555)  # bandwidth decides only what is bound by arithmetic: an A100's


def _empty(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device="cuda")


def _reinterpret(tensor: Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Tensor:
    return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset)


def _first(operation: Any, *arguments: Any, **options: Any) -> tuple[Tensor, Any]:
    """An operation that draws numbers, and the random state before it, on the CPU as CUDA's is."""
    return torch.cuda.get_rng_state(), operation(*arguments, **options)


def _again(state: Tensor, operation: Any, *arguments: Any, **options: Any) -> Any:
    """The same once more, in the backward pass."""
    return operation(*arguments, **options)


def _pays(match: Any, mat1: Tensor, mat2: Tensor, op: Any, input: Tensor | None = None) -> bool:
    """Whether a product that can be padded is: where arithmetic and not memory bounds it."""
    from torch._inductor.fx_passes import pad_mm

    if op is torch.ops.aten.bmm:
        (_, m, k), n = mat1.shape, mat2.shape[2]
    else:
        (m, k), n = mat1.shape, mat2.shape[1]
    return bool(pad_mm.is_mm_compute_bound(m, k, n, mat1.dtype))
