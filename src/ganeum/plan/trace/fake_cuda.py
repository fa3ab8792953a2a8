"""CUDA tensors without CUDA: operations on fake tensors go the way that they would go on a GPU, on any build of torch.

Fake tensors have shapes, types and a device, but no numbers (``torch._subclasses.FakeTensorMode``). Under a build of
torch for CPUs the first of autograd's operations on a fake CUDA tensor would still look for CUDA's device guard and
for its hooks, and abort the process. Both are tables of C++ functions: here their places are taken by functions that do
nothing, and torch's own guard for tracing without a GPU (``NoOpDeviceGuardImpl``) does the rest. A build with CUDA has
that guard, but would look for a context among no GPUs; where there is one, the tables stay as they are.

What Python asks of ``torch.cuda`` (is it there, which card is it) is answered for the card that is meant.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ganeum.hardware import catalogue
from ganeum.hardware.device import Device

CUDA = 1  # c10::DeviceType::CUDA, an index into the table of guards
GUARDS, HOOKS = "_ZN3c104impl26device_guard_impl_registryE", "_ZN2at6detail12getCUDAHooksEv"
SLOTS = 80  # of a table of virtual functions: more than either class has
IS_BUILT, HAS_PRIMARY_CONTEXT = 2, 4  # places in CUDAHooksInterface's, behind the two destructors
NOTHING = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p, ctypes.c_int8)  # bool (this, device)
BUILT = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p)  # bool (this)
MULTIPROCESSORS = 108  # of a card that the catalogue does not have: an A100's


@dataclass(frozen=True)
class Card:
    """The GPU that is meant.

    Attributes:
        capability: compute capability.
        multiprocessors: how many there are.
        memory_bytes: all of its memory.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int

    @classmethod
    def of(cls, device: Device) -> Card:
        """The card behind ``device``, which is a CUDA device."""
        known = catalogue.find(device.name, device.memory_gib)
        count = known.figures.get("sm_count") if known is not None else None
        return cls(
            device.name,
            device.capability or (8, 0),
            int(count.value) if count is not None else MULTIPROCESSORS,
            round(device.memory_gib * 2**30),
        )


class Waits:
    """A stream or an event where nothing runs: there is never anything to wait for."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 0.0

    def synchronize(self, *_: Any) -> None:
        pass

    record = wait = record_event = wait_event = wait_stream = synchronize


@contextmanager
def fake_cuda(card: Card) -> Iterator[None]:
    """Inside, ``cuda`` may stand for the device of fake tensors, and ``torch.cuda`` speaks of ``card``.

    Everything is undone at the end. Backward passes run in the thread that asks for them: a pool of threads for CUDA
    may not exist, and the order of operations is the same.
    """
    with ExitStack() as stack:
        if torch.version.cuda is None:
            stack.enter_context(_guard())
        if not torch.cuda.is_available():
            stack.enter_context(_hooks())
        stack.enter_context(_answers(card))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(_without_cudnn())
        yield


def self_test() -> None:
    """Takes one small step in bf16 on a fake GPU.

    Raises:
        RuntimeError: this build of torch does not do what is expected of it. It may also end the process: whoever
            does not know the build asks in a child process.
    """
    with fake_cuda(Card("self-test", (8, 0), MULTIPROCESSORS, 2**30)), fakes(), torch.device("cuda"):
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Dropout(0.1))
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            out = model(torch.zeros(4, 8))
        if out.dtype != torch.bfloat16 or out.device.type != "cuda":
            raise RuntimeError(f"autocast gave {out.dtype} on {out.device} where bf16 on cuda was expected")
        out.float().sum().backward()
        optimizer.step()
        if any(p.grad is None or p.grad.device.type != "cuda" for p in model.parameters()):
            raise RuntimeError("a backward pass left no gradients on the fake GPU")


def _library(name: str) -> ctypes.CDLL:
    ending = ".dylib" if sys.platform == "darwin" else ".so"
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / f"{name}{ending}"))


@contextmanager
def _guard() -> Iterator[None]:
    """The device guard of a build without CUDA. torch puts its own that does nothing where one counts no devices, as a
    build with CUDA and no GPU does: so such a one is there for a moment."""
    guards = (ctypes.c_void_p * (CUDA + 1)).in_dll(_library("libc10"), GUARDS)
    before = guards[CUDA]
    nothing = NOTHING(lambda this, device: 0)
    table = (ctypes.c_void_p * SLOTS)(*([ctypes.cast(nothing, ctypes.c_void_p).value] * SLOTS))
    guard = ctypes.c_void_p(ctypes.addressof(table))
    guards[CUDA] = ctypes.addressof(guard)
    torch._C._ensureCUDADeviceGuardSet()
    try:
        if guards[CUDA] == ctypes.addressof(guard):
            raise RuntimeError("torch did not put its no-op guard for CUDA in place")
        yield
    finally:
        guards[CUDA] = before


@contextmanager
def _hooks() -> Iterator[None]:
    """CUDA's hooks, where there is no GPU: it is built, which makes it the accelerator (``at::getAccelerator``), and no
    device has a context, which a build with CUDA would look for among none."""
    get = getattr(_library("libtorch_cpu"), HOOKS)
    get.restype, get.argtypes = ctypes.c_void_p, []
    hooks = ctypes.c_void_p.from_address(get())
    old = hooks.value
    assert old is not None
    built, nothing = BUILT(lambda this: 1), NOTHING(lambda this, device: 0)
    functions = (ctypes.c_void_p * SLOTS)(*(ctypes.c_void_p * SLOTS).from_address(old))
    functions[IS_BUILT] = ctypes.cast(built, ctypes.c_void_p).value
    functions[HAS_PRIMARY_CONTEXT] = ctypes.cast(nothing, ctypes.c_void_p).value
    hooks.value = ctypes.addressof(functions)
    try:
        yield
    finally:
        hooks.value = old


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """What cuDNN keeps only it knows: recurrent layers are traced in their plain form, as where it is missing."""
    before = torch._C._get_cudnn_enabled()
    torch._C._set_cudnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_cudnn_enabled(before)


@contextmanager
def _answers(card: Card) -> Iterator[None]:
    """What Python asks of CUDA, and the places where torch or a library would notice fake tensors and do otherwise."""
    import torch._subclasses.fake_tensor as fake
    import torch.optim.optimizer as optimizers
    import torch.utils._foreach_utils as foreach

    major, minor = card.capability
    properties = types.SimpleNamespace(
        name=card.name,
        major=major,
        minor=minor,
        total_memory=card.memory_bytes,
        multi_processor_count=card.multiprocessors,
        warp_size=32,
        is_integrated=False,
        gcnArchName="",
    )
    answers: list[tuple[Any, str, Any]] = [
        (torch.cuda, name, _giving(value))
        for name, value in {
            "is_available": True,
            "device_count": 1,
            "current_device": 0,
            "set_device": None,
            "get_device_properties": properties,
            "get_device_capability": card.capability,
            "get_device_name": card.name,
            "is_bf16_supported": True,
            "is_current_stream_capturing": False,
            "synchronize": None,
            "empty_cache": None,
            "reset_peak_memory_stats": None,
            "mem_get_info": (card.memory_bytes, card.memory_bytes),
            "current_stream": Waits(),
            "memory_allocated": 0,
            "max_memory_allocated": 0,
            "memory_reserved": 0,
            "max_memory_reserved": 0,
        }.items()
    ]
    answers += [
        (torch.cuda, "Stream", Waits),
        (torch.cuda, "Event", Waits),
        (torch.cuda, "stream", lambda stream: contextlib.nullcontext(stream)),
        (torch.cuda.amp.common, "amp_definitely_not_available", _giving(False)),
        # is_available would have these two create a context of CUDA's
        (fake, "init_gpu_context", _nothing),
        (fake.FakeTensorMode, "avoid_device_init", True),
        # else optimizers take their for-loops
        (foreach, "_foreach_supported_types", [*foreach._foreach_supported_types, fake.FakeTensor]),
        (optimizers, "_foreach_supported_types", [*optimizers._foreach_supported_types, fake.FakeTensor]),
        # what is pinned lies in the CPU's memory
        (torch.Tensor, "pin_memory", lambda tensor, *_: tensor),
        (torch.Tensor, "is_pinned", lambda tensor, *_: False),
    ]
    with replaced(answers):
        yield


@contextmanager
def fakes() -> Iterator[None]:
    """Inside, tensors are fake, whatever device they are on; real ones that come in become so."""
    from torch._subclasses import FakeTensorMode

    # Module.to exchanges fake weights, and refuses where anything has a weak reference to them, as fake tensors do.
    unseen = types.SimpleNamespace(getweakrefs=_giving([]))
    # What a worker loads would come from another process through shared memory, which fake tensors have none of.
    answers = [(torch.utils, "weakref", unseen), (torch.utils.data.DataLoader, "__init__", _in_this_process())]
    with replaced(answers), FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False):
        yield


def _in_this_process() -> Any:
    """DataLoader's, without workers."""
    original = torch.utils.data.DataLoader.__init__
    names = inspect.signature(original)

    def loader(self: Any, *given: Any, **named: Any) -> None:
        arguments = names.bind(self, *given, **named).arguments
        for name in (
            "self",
            "num_workers",
            "prefetch_factor",
            "persistent_workers",
            "multiprocessing_context",
            "timeout",
        ):
            arguments.pop(name, None)
        original(self, **arguments)

    return loader


@contextmanager
def unnoticed() -> Iterator[None]:
    """Inside, transformers, where it is loaded, takes fake tensors for real ones: else it makes masks for them that it
    spares a run."""
    answers: list[tuple[Any, str, Any]] = []
    if "transformers" in sys.modules:
        import transformers.utils.import_utils as theirs

        answers.append((theirs, "is_fake_tensor", _giving(False)))
    with replaced(answers):
        yield


@contextmanager
def replaced(answers: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """(where, name, value): each is that inside, and afterwards what it was."""
    before = [(where, name, vars(where)[name]) for where, name, _ in answers if name in vars(where)]
    inherited = [(where, name) for where, name, _ in answers if name not in vars(where)]
    for where, name, value in answers:
        setattr(where, name, value)
    try:
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
        for where, name in inherited:
            delattr(where, name)


def _giving(value: Any) -> Any:
    return lambda *_, **__: value


def _nothing(*_: Any, **__: Any) -> None:
    return None
