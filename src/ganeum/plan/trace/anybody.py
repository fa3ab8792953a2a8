"""Any module and any training step, traced: code that this project has never seen, on a GPU that need not be here."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import optimizer as optimizers

from ganeum.errors import GaneumError, TraceError
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.hardware.machine import look
from ganeum.plan.trace.bystanders import bystanders
from ganeum.plan.trace.events import Allocation, Trace
from ganeum.plan.trace.fake_cuda import replaced, unnoticed
from ganeum.plan.trace.recorder import Recorder
from ganeum.plan.trace.replay import Replayed, replay
from ganeum.plan.trace.step import stage

Built = TypeVar("Built")

COMPILED = "_torchdynamo_orig_callable"  # an attribute of a function that torch.compile made

OURS = Path(__file__).parent
NUMBERS = "fake tensors have shapes and no numbers, and here the code needs some"
SEARCHES = "LBFGS decides by its numbers when it stops: how often it asks for the loss, and what it keeps, was assumed"
FUSED = "in evaluation a run may take one kernel for a whole {name}, whose workspace is not known: traced in its parts"
LEAVE_OUT = "leave out what looks at numbers (metrics, plots, sampling), or take shapes that do not depend on them"


def predict(build: Callable[[], Built], step: Callable[[Built], Any], gpu: str | None = None) -> Replayed:
    """The memory that two steps take; see :func:`ganeum.plan.predict_memory`."""
    device = look() if gpu is None else card(gpu)
    with _weights_kept():
        return replay(trace(build, step, device))


def trace(build: Callable[[], Built], step: Callable[[Built], Any], device: Device, *, steps: int = 2) -> Trace:
    """What ``build()`` and then ``step`` of what it gave, ``steps`` times, ask of the allocator of ``device``.

    Weights that were made before become fake ones where they are moved: the process had better be one for traces.

    Raises:
        TraceError: it cannot be done without numbers, nothing of it lies on the device, or the code itself fails.
    """
    with ExitStack() as stack:
        scene = stack.enter_context(stage(device))
        recorder = scene.recorder
        stack.enter_context(bystanders(device.kind))
        stack.enter_context(_operation_by_operation(recorder))
        stack.enter_context(recorder)
        with _explained(build, "build"):
            built = build()
        stack.enter_context(unnoticed())
        if device.kind == "cuda" and any(map(_compiled, (*_parts(built), *_within_reach(build, step)))):
            from ganeum.plan.trace import inductor

            stack.enter_context(inductor.compiling_for(device))
            recorder.uncertain[inductor.ASSUMED] = None
        found = tuple(dict.fromkeys(part for part in _parts(built) if isinstance(part, nn.Module)))
        stack.enter_context(recorder.modules_of(*found))
        for module in found:
            recorder.label(module.parameters(), "weights")
        seen = stack.enter_context(_updates(recorder, found))
        starts = []
        for _ in range(steps):
            starts.append(len(recorder.events))
            recorder.phase = "forward"
            with _explained(step, "step"):
                step(built)
        recorder.phase = "build"
        for module in found:  # also what has become a weight since
            recorder.label(module.parameters(), "weights")
        if device.kind == "cuda" and not any(isinstance(event, Allocation) for event in recorder.events):
            raise TraceError(
                "nothing of this step is on the GPU",
                where="predict_memory",
                why="what it makes lies on the CPU",
                suggestion='model.to("cuda") in build, and batches made with device="cuda" in step',
            )
        settings = {"optimizers": sorted({type(one).__name__ for one in seen})}
        return scene.trace(starts, settings)


@contextmanager
def _weights_kept() -> Iterator[None]:
    """Inside, a module that has numbers can neither be moved nor be run: it would be left without them."""
    from torch._subclasses import FakeTensor

    apply: Any = nn.Module._apply

    def refuse(module: nn.Module, *_: Any) -> None:
        if any(not isinstance(weight, FakeTensor) for weight in module.parameters(recurse=False)):
            raise TraceError(
                f"the weights of a {type(module).__name__} were made before",
                where="predict_memory",
                why="a trace would take their numbers away: it goes without any",
                suggestion="make the model in build, or copy.deepcopy(model) there",
            )

    def checked(module: nn.Module, *given: Any, **named: Any) -> Any:
        for part in module.modules():
            refuse(part)
        return apply(module, *given, **named)

    handle = register_module_forward_pre_hook(refuse)
    try:
        with replaced([(nn.Module, "_apply", checked)]):
            yield
    finally:
        handle.remove()


@contextmanager
def _operation_by_operation(recorder: Recorder) -> Iterator[None]:
    """Inside, nn.TransformerEncoder in evaluation takes its steps one by one. Its kernel for all of a layer shows
    nothing of what it makes in between, which is about the same; of a GPU's, that is said."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)

    def note(module: nn.Module, *_: Any) -> None:
        fast = isinstance(module, (nn.TransformerEncoderLayer, nn.MultiheadAttention)) and not module.training
        learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in module.parameters())
        if before and fast and not learns and recorder.device == "cuda":
            recorder.uncertain[FUSED.format(name=type(module).__name__)] = None

    handle = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _updates(recorder: Recorder, modules: Iterable[nn.Module]) -> Iterator[list[torch.optim.Optimizer]]:
    """Tells the recorder when an optimizer of torch's is at work, and what it keeps → those seen."""
    seen: dict[int, torch.optim.Optimizer] = {}

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if isinstance(optimizer, torch.optim.LBFGS) and recorder.device == "cpu":  # on a GPU each number is told
            recorder.uncertain[SEARCHES] = None
        for module in modules:
            recorder.label((p.grad for p in module.parameters()), "gradients")
        for group in optimizer.param_groups:
            recorder.label((p.grad for p in group["params"]), "gradients")
            recorder.label(group["params"], "weights")
        recorder.phase = "update"

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen[id(optimizer)] = optimizer
        recorder.phase = "forward"
        for state in optimizer.state.values():
            recorder.label((t for t in state.values() if isinstance(t, Tensor)), "optimizer")

    handles = [
        optimizers.register_optimizer_step_pre_hook(before),
        optimizers.register_optimizer_step_post_hook(after),
    ]
    found: list[torch.optim.Optimizer] = []
    try:
        yield found
    finally:
        found += seen.values()
        for handle in handles:
            handle.remove()


def _parts(built: Any, depth: int = 3) -> Iterator[Any]:
    """Modules and compiled functions in what ``build`` gave: itself, in a tuple, a list or a dictionary, or as
    attributes of an object."""
    if isinstance(built, nn.Module) or _compiled(built):
        yield built
    elif depth and isinstance(built, (list, tuple, set)):
        for one in built:
            yield from _parts(one, depth - 1)
    elif depth and isinstance(built, Mapping):
        yield from _parts(list(built.values()), depth)
    elif depth and hasattr(built, "__dict__") and not isinstance(built, (type, Tensor)):
        yield from _parts(list(vars(built).values()), depth - 1)


def _within_reach(*functions: Callable[..., Any]) -> Iterator[Any]:
    """What functions can call by name: in their files, and where they are written."""
    for function in functions:
        yield from getattr(function, "__globals__", {}).values()
        for cell in getattr(function, "__closure__", None) or ():
            with suppress(ValueError):  # a name that has no value yet
                yield cell.cell_contents


def _compiled(part: Any) -> bool:
    """``torch.compile(module or function)``, ``@torch.compile`` or ``module.compile()``."""
    if not isinstance(part, nn.Module):
        told = getattr(part, "__dict__", {})
        return COMPILED in told and "_torchdynamo_disable" not in told  # what torch itself made of others' functions
    return hasattr(part, "_orig_mod") or any(inner._compiled_call_impl is not None for inner in part.modules())


@contextmanager
def _explained(function: Callable[..., Any], name: str) -> Iterator[None]:
    """What cannot be done with fake tensors is said with the line that asks for it."""
    from torch._subclasses import fake_tensor as fake

    wants_numbers = (fake.DynamicOutputShapeException, fake.DataDependentOutputException)
    try:
        yield
    except GaneumError:
        raise
    except wants_numbers as error:
        raise TraceError(
            f"the memory of this step depends on its numbers: {error.func}",
            where=_line(error, function),
            why=NUMBERS,
            suggestion=LEAVE_OUT,
        ) from error
    except fake.UnsupportedOperatorException as error:
        raise TraceError(
            f"torch has no fake form of an operation: {error.func}",
            where=_line(error, function),
            why="without one nobody knows the shapes that it gives",
            suggestion="register one with torch.library.register_fake",
        ) from error
    except Exception as error:  # of whatever the code does
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        why, suggestion = _remedy(first)
        raise TraceError(
            f"{name} failed: {type(error).__name__}: {first}",
            where=_line(error, function),
            why=why,
            suggestion=suggestion,
        ) from error


def _remedy(said: str) -> tuple[str | None, str | None]:
    """Why that may be, and what to try, as far as the error's own words tell."""
    words = said.lower()
    if "cuda generator" in words:
        return (
            "without a GPU torch has no random generator for one",
            "leave generator= out: memory does not depend on it",
        )
    if "uninitializedparameter" in words:
        return "a lazy layer takes its sizes from numbers that it is shown", "nn.Linear, with sizes, for nn.LazyLinear"
    if "scriptmodule" in words:
        return "a script's weights cannot be exchanged for fake ones", "the module itself, without torch.jit.script"
    if "numpy" in words or "fake tensor" in words or "faketensor" in words:
        return NUMBERS, LEAVE_OUT
    if "cuda" in words and not torch.cuda.is_available():
        return "no card was named, and there is none here", '--gpu "RTX 4090" for one; in Python gpu="RTX 4090"'
    return None, None


def _line(error: BaseException, function: Callable[..., Any]) -> str:
    """The innermost line of the traceback that is not torch's or this room's; before it, that of the function."""
    packages = str(Path(torch.__file__).parent.parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((packages, str(OURS), "<"))
    ]
    if not frames:
        return getattr(function, "__qualname__", repr(function))
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}"
