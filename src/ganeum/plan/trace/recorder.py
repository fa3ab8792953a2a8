"""Records what operations ask of the allocator: each storage that appears on the device, and when it goes.

A dispatch mode sees every operation of forward, backward and update with its results. A result's storage that was not
there before is an allocation; a weak reference tells its end. With each goes what asked for it: operation, layer and
source line; an operation of the backward pass has those of the forward operation that it belongs to, found by the
number that autograd gives to each.
"""

from __future__ import annotations

import sys
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import graph
from torch.nn.modules import module as modules
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganeum.plan.trace import cpu_casts, kernels
from ganeum.plan.trace.answers import ALIKE, Answers
from ganeum.plan.trace.attention import Attention
from ganeum.plan.trace.events import Allocation, Event, Kind, Release
from ganeum.plan.trace.workspaces import MATRIX_PRODUCTS, Workspaces

aten = torch.ops.aten
TORCH, HERE = str(Path(torch.__file__).parent), str(Path(__file__).parent)
ENGINE = graph.__file__  # what is called from there runs in the backward pass
DEVICE = torch.ops.prim.device  # a question, which fake tensors answer as an operation
RESIZING = frozenset((aten.resize_, aten.set_, aten.resize_as_, torch.ops.inductor.resize_storage_bytes_))
RECURRENT = "cuDNN's LSTM and GRU keep memory of their own for the backward pass; traced is their plain form"
UNKNOWN = {
    aten.convolution: "cuDNN's convolutions take a workspace while they run, of a size that only cuDNN knows",
    aten._thnn_fused_lstm_cell: RECURRENT,
    aten._thnn_fused_gru_cell: RECURRENT,
    aten._scaled_dot_product_cudnn_attention_backward: "cuDNN's attention takes a workspace in the backward pass",
}
IN_PLACE_USES = 2  # of a storage that only the engine and this mode hold


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, operations on ``device`` are recorded.

    Attributes:
        events: all so far.
        kinds: of allocations whose kind became known later.
        phase: what is at work, except for what runs in a backward pass.
        uncertain: what had to be assumed, in sentences; each once.
    """

    def __init__(
        self, device: str, *, workspaces: Workspaces | None = None, attention: Attention | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.workspaces, self.attention = device, workspaces, attention
        self.events: list[Event] = []
        self.kinds: dict[int, Kind] = {}
        self.phase = "build"
        self.kind: Kind = "other"
        self.vocabularies: set[int] = set()
        self.uncertain: dict[str, None] = {}
        self.answers = Answers()
        self._keys: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._count = 0
        self._layers: list[str] = []
        self._names: dict[int, str] = {}
        self._numbers: list[int] = []  # of autograd, ascending, where layer or source changed
        self._places: list[tuple[str, str]] = []
        self._warm: set[bool] = set()  # threads that have a workspace for matrix products

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # torch.compile works under this mode

    # What is known beforehand and afterwards

    @contextmanager
    def modules_of(self, *roots: nn.Module) -> Iterator[None]:
        """Inside, what these modules do is recorded under their names."""
        for root in roots:
            self._names |= {id(module): name for name, module in root.named_modules()}
            self.vocabularies |= _vocabularies(root)
        with ExitStack() as stack:
            for handle in (
                modules.register_module_forward_pre_hook(self._enter),
                modules.register_module_forward_hook(self._leave, always_call=True),
            ):
                stack.callback(handle.remove)
            yield

    def forget(self) -> None:
        """Nothing was recorded so far, and nothing is there."""
        self.events, self.kinds, self._keys = [], {}, {}
        self._numbers, self._places, self._warm = [], [], set()

    def warm(self, backward: bool) -> None:
        """Matrix products run in the thread of the forward or of the backward pass, whose handle then has a
        workspace."""
        if self.workspaces is not None and backward not in self._warm:
            self._warm.add(backward)
            self._allocate(self.workspaces.matrix_products(), "workspace of matrix products", "workspace", "", "")

    def present(self, tensors: Iterable[Tensor], kind: Kind, operation: str) -> None:
        """Tensors that are there already: allocations, where they were not recorded when they were made."""
        for tensor in tensors:
            self._track(tensor, operation, kind, "", "")
            self.label((tensor,), kind)

    def label(self, tensors: Iterable[Tensor | None], kind: Kind) -> None:
        """Says what recorded tensors are for."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.device.type == self.device and tensor.layout == torch.strided:
                found = self._keys.get(id(tensor.untyped_storage()))
                if found is not None:
                    self.kinds[found[0]] = kind

    def finished(self) -> tuple[Event, ...]:
        """The events, each allocation with what became known of it. Of what goes at once the oldest goes first: the
        order in which Python lets go of it changes from process to process."""
        self._keys.clear()  # with the references, so that what goes later is no event
        events: list[Event] = []
        age = {event.key: place for place, event in enumerate(self.events) if isinstance(event, Allocation)}
        for releases, run in groupby(self.events, key=lambda event: isinstance(event, Release)):
            some = list(run)
            events += sorted(some, key=lambda event: age[event.key]) if releases else some
        for place, event in enumerate(events):
            if isinstance(event, Allocation) and event.key in self.kinds:
                known = self.kinds[event.key]
                events[place] = Allocation(
                    event.key, event.bytes, event.operation, event.phase, event.layer, known, event.source
                )
        return tuple(events)

    # Operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet is DEVICE:
            return func(*args, **kwargs)
        if packet is aten._local_scalar_dense:
            return self._number(func, args)
        if packet in ALIKE and _is_fake(args[0]):
            self._assumed("whether tensors are alike is asked", True)
            return True
        backward = torch._C._current_graph_task_id() != -1
        if packet is aten.scaled_dot_product_attention and self.attention is not None and args[0].is_cuda:
            with self:  # where no gradients are recorded, torch has not chosen a kernel by now
                return self.attention(*args, **kwargs)
        if func is aten.add.Tensor and backward and _summed_in_place(args, kwargs):
            aten.add_.Tensor(args[0], args[1])
            return args[0]
        if func in kernels.INTO_ZEROS and backward and self._just_zeroed(args[0]):
            kernels.INTO_ZEROS[func](*args, **kwargs)
            return args[0]
        layer, source = self._place(backward)
        if packet in MATRIX_PRODUCTS and args[0].is_cuda:
            self.warm(backward)
        out = kernels.results(packet, args)
        if out is None:
            out = func(*args, **kwargs)
        name = func.name()
        if packet in UNKNOWN and self.device == "cuda":
            self.uncertain[UNKNOWN[packet]] = None
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._track(tensor, name, None, layer, source, resized=packet in RESIZING)
        if self.workspaces is not None or self.device == "cpu":
            takes: Any = self.workspaces or cpu_casts
            sizes = takes.inside(packet, args, kwargs)
            keys = [self._allocate(size, f"{name}, inside", "workspace", layer, source) for size in sizes]
            self.events += [Release(key) for key in keys]
        self.answers.learn(func, packet, args, kwargs, out)
        return out

    def _number(self, func: Any, args: tuple[Any, ...]) -> Any:
        """What ``.item()`` gives. Memory seldom depends on it; where code branches by it, it might."""
        tensor = args[0]
        if getattr(tensor, "constant", None) is not None or not _is_fake(tensor):
            return func(*args)
        value, known = self.answers.number(tensor)
        if not known and tensor.device.type != "cpu":
            self._assumed("a number is read from the device", value)
        return value

    def _assumed(self, what: str, value: Any) -> None:
        _, source = self._place(False)
        self.uncertain[f"{what} ({source}) and was taken as {value}"] = None

    def _track(
        self, tensor: Tensor, operation: str, kind: Kind | None, layer: str, source: str, *, resized: bool = False
    ) -> None:
        if tensor.device.type != self.device or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        place = id(storage)
        if place in self._keys:
            if not resized:
                return
            self._gone(place, self._keys[place][0])
        size = int(storage.nbytes())
        key = self._allocate(size, operation, kind or self._kind_of(tensor), layer, source)
        self._keys[place] = key, weakref.ref(storage, lambda _: self._gone(place, key))

    def _allocate(self, size: int, operation: str, kind: Kind, layer: str, source: str) -> int:
        self._count += 1
        backward = torch._C._current_graph_task_id() != -1
        phase = "backward" if backward else self.phase
        self.events.append(Allocation(self._count, size, operation, phase, layer, kind, source))
        return self._count

    def _gone(self, place: int, key: int) -> None:
        if self._keys.get(place, (None,))[0] == key:
            del self._keys[place]
            self.events.append(Release(key))

    def _just_zeroed(self, tensor: Tensor) -> bool:
        """Whether it is the last thing that was allocated, and filled with zeros."""
        if not self.events or not isinstance(last := self.events[-1], Allocation):
            return False
        found = self._keys.get(id(tensor.untyped_storage()))
        return found is not None and found[0] == last.key and last.operation.partition(".")[0] in kernels.ZEROS

    def _kind_of(self, tensor: Tensor) -> Kind:
        if self.phase in ("build", "batch"):
            return "other" if self.phase == "build" else "inputs"
        if self.phase == "update":
            return "workspace"
        if tensor.dim() >= 2 and tensor.size(-1) in self.vocabularies:
            return "logits"
        return "activations"

    # Where it happens

    def _enter(self, module: nn.Module, _: Any) -> None:
        if torch.compiler.is_compiling():  # what is written here would break the graph within a checkpoint
            return
        self._layers.append(self._names.get(id(module), self._layers[-1] if self._layers else ""))

    def _leave(self, module: nn.Module, *_: Any) -> None:
        if self._layers and not torch.compiler.is_compiling():
            self._layers.pop()

    def _place(self, backward: bool) -> tuple[str, str]:
        """Layer and source line of the operation at hand."""
        source, ours = _source(backward)
        if backward and not ours:
            return self._forward_place()
        layer = self._layers[-1] if self._layers else ""
        if backward and not layer:
            layer = self._forward_place()[0]
        if not backward:
            number = torch._C._autograd._get_sequence_nr() - 1
            # A node is numbered before its kernel runs. Of a custom function's lines, which run without gradients, the
            # first is its place.
            new = torch.is_grad_enabled() or not self._numbers or number > self._numbers[-1]
            if new and (not self._places or self._places[-1] != (layer, source)):
                self._numbers.append(number)
                self._places.append((layer, source))
        return layer, source

    def _forward_place(self) -> tuple[str, str]:
        node = torch._C._current_autograd_node()
        if node is None:
            return "", ""
        found = bisect_right(self._numbers, node._sequence_nr()) - 1
        return self._places[found] if found >= 0 else ("", "")


def _vocabularies(root: nn.Module) -> set[int]:
    """Rows that an embedding and an output layer both have."""
    looked_up = {m.num_embeddings for m in root.modules() if isinstance(m, nn.Embedding)}
    given = {m.out_features for m in root.modules() if isinstance(m, nn.Linear)}
    return looked_up & given


def _is_fake(tensor: Tensor) -> bool:
    from torch._subclasses import FakeTensor

    return isinstance(tensor, FakeTensor)


def _summed_in_place(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the engine, without a mode that looks on, would have added a gradient to another in its memory
    (torch/csrc/autograd/input_buffer.cpp): nobody else holds it."""
    if torch.is_grad_enabled() or kwargs or len(args) != 2 or not isinstance(args[1], Tensor):
        return False
    old, new = args
    if old.shape != new.shape or old.dtype != new.dtype or not old.dim():
        return False
    return bool(torch._C._storage_Use_Count(old.untyped_storage()._cdata) <= IN_PLACE_USES)


_LINES: dict[CodeType, str | None] = {}


def _source(backward: bool) -> tuple[str, bool]:
    """``file.py:12`` of the innermost line outside torch and what it compiled, and, in a backward pass, whether it runs
    within that pass."""
    frame: FrameType | None = sys._getframe(2)
    inside = True
    while frame is not None:
        code = frame.f_code
        if code.co_filename == ENGINE:
            inside = False
        name = _LINES.get(code, "?")
        if name == "?":
            compiled = str(frame.f_globals.get("__name__")).startswith("torch.")
            name = _LINES[code] = None if compiled else _shortened(code.co_filename)
        if name is not None:
            return f"{name}:{frame.f_lineno}", inside or not backward
        frame = frame.f_back
    return "", False


def _shortened(path: str) -> str | None:
    """Of an installed package from its name on, else the file's name; None for torch, for this room and for what has
    no file."""
    if path.startswith((TORCH, HERE, "<")) or path.endswith(("contextlib.py", "functools.py", "_ops.py")):
        return None
    for mark in ("site-packages/", "dist-packages/", "/src/"):
        if mark in path:
            return path.rpartition(mark)[2]
    return Path(path).name
