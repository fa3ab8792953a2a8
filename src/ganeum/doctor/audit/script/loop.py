"""The loop over batches that somebody wrote: what is kept, waited for, written and forgotten in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ganeum.doctor.audit.script import Seen
from ganeum.doctor.audit.settings import Said

WAITS = ("item", "cpu", "tolist", "numpy")
LOST = ("item", "detach", "float", "cpu", "numpy", "tolist", "mean_item")


def waits(seen: Seen) -> Iterator[Said]:
    """A wait for the GPU in every step."""
    script = seen.script
    if script.loop is None:
        return
    for call in script.calls:
        if script.in_loop(call.node, always=True):
            if call.name.endswith("cuda.synchronize"):
                yield seen.found(
                    "sync", "every step waits for the GPU", call.line, change="without it, but for measuring"
                )
            elif call.name.endswith("cuda.empty_cache") or call.name == "gc.collect":
                yield seen.found(
                    "memory_emptied",
                    f"{call.name} in every step",
                    call.line,
                    evidence=(
                        "the allocator has to ask the driver for all of it again; it frees nothing that is in use",
                    ),
                    change="without it",
                )
    read = [c for c in script.calls if c.ends(*WAITS) and not c.values and script.in_loop(c.node, always=True)]
    if read and not any("metric" in c.name for c in read[:1]):
        yield seen.found(
            "sync",
            f"every step waits for the GPU to read a number ({read[0].name}())",
            read[0].line,
            severity="note",
            change="keep the loss as a tensor (loss.detach()) and read it every 50 steps",
        )


def one_by_one(seen: Seen) -> Iterator[Said]:
    """A loop over all weights in every step, for what torch does for all at once."""
    script = seen.script
    for node in ast.walk(script.tree):
        if not isinstance(node, ast.For) or not script.in_loop(node, always=True):
            continue
        if not ast.unparse(node.iter).endswith(("parameters()", "parameters())")):
            continue
        body = "\n".join(map(ast.unparse, node.body))
        if ".grad" in body and (".norm(" in body or ".item()" in body or "isnan" in body or "isfinite" in body):
            yield seen.found(
                "python_loop",
                "every step goes through the gradients one by one",
                node.lineno,
                severity="note",
                change="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) gives their norm; read it now and then",
            )


def kept(seen: Seen) -> Iterator[Said]:
    """A loss that is added up, or put away, with its graph."""
    script = seen.script
    if script.loop is None:
        return
    backwarded = _backwarded(seen)
    for node in ast.walk(script.tree):
        if not isinstance(node, (ast.AugAssign, ast.Call)) or script.under(node, "no_grad", "inference_mode"):
            continue
        around = script.enclosing(node, (ast.For, ast.While))
        if around is None or not any(call.ends("backward") and _in(call.node, around) for call in script.calls):
            continue
        target = _target(node, backwarded)
        if target and not _begun_anew(seen, node, target):
            yield _kept(seen, node.lineno)
    for call in script.called("backward"):
        if call.get("retain_graph") is True:
            yield seen.found(
                "kept_graph",
                "retain_graph=True keeps every activation until the next step",
                call.line,
                change="without it; one backward through the sum of the losses",
            )


def _target(node: ast.AugAssign | ast.Call, backwarded: set[str]) -> str | None:
    """What a loss is added to, or put into. `loss += auxiliary_loss`, and a sum that backward() is called on, are still
    this step's."""
    if isinstance(node, ast.AugAssign):
        name = ast.unparse(node.target)
        summed = isinstance(node.op, ast.Add) and _holds(node.value, backwarded)
        return name if summed and name not in backwarded else None
    name, _, what = ast.unparse(node.func).rpartition(".")
    return name if what == "append" and node.args and _holds(node.args[0], backwarded) else None


def _begun_anew(seen: Seen, node: ast.AST, name: str) -> bool:
    """Whether the loop itself sets it back, after each update say: it then never holds more than a few steps."""
    loop = seen.script.enclosing(node, (ast.For, ast.While))
    return any(
        (isinstance(inner, ast.Assign) and name in map(ast.unparse, inner.targets))
        or (isinstance(inner, ast.Call) and ast.unparse(inner.func) == f"{name}.clear")
        for inner in ast.walk(loop or ast.Pass())
    )


def _kept(seen: Seen, line: int) -> Said:
    return seen.found(
        "kept_graph",
        "a loss is kept with its graph: memory grows with every step",
        line,
        change="loss.detach(), read every so often",
    )


def _in(node: ast.AST, around: ast.AST) -> bool:
    return any(inner is node for inner in ast.walk(around))


def _holds(node: ast.AST, backwarded: set[str]) -> bool:
    """Whether it is what backward() is called on, with all that hangs on it, or reckoned from it."""
    if isinstance(node, ast.BinOp):
        return _holds(node.left, backwarded) or _holds(node.right, backwarded)
    return isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in backwarded


def _backwarded(seen: Seen) -> set[str]:
    """What goes backward: `loss.backward()`, `accelerator.backward(loss)`, `(loss / n).backward()`."""
    found = set()
    for call in seen.script.called("backward"):
        about = call.node.args[0] if call.node.args else getattr(call.node.func, "value", None)
        names = [inner for inner in ast.walk(about or call.node) if isinstance(inner, (ast.Name, ast.Attribute))]
        found |= {ast.unparse(name) for name in names[:3] if "loss" in ast.unparse(name).lower()}
    return found


def update(seen: Seen) -> Iterator[Said]:
    """Gradients: never let go, filled with zeros, or added up without a division."""
    script = seen.script
    if script.loop is None:
        return
    emptied = list(script.called("zero_grad")) or any(".grad" in one.target for one in script.assignments)
    if not emptied:
        yield seen.found(
            "gradients_kept",
            "gradients are never set back: each step adds to all before it",
            script.loop.lineno,
            severity="error",
            change="optimizer.zero_grad(set_to_none=True) after each optimizer.step()",
        )
    for call in script.called("zero_grad"):
        if call.get("set_to_none") is False:
            yield seen.found(
                "zero_grad",
                "gradients are filled with zeros instead of let go",
                call.line,
                severity="note",
                change="zero_grad(), whose default is set_to_none=True",
            )
    steps = [call for call in script.called("step") if "optim" in call.name.lower() or "scaler" in call.name.lower()]
    periodic = next((call for call in steps if _every(script.enclosing(call.node, (ast.If,)))), None)
    if periodic is not None and script.in_loop(periodic.node) and not _divided(seen):
        yield seen.found(
            "accumulation",
            "gradients of several batches are added up and never averaged",
            periodic.line,
            severity="error",
            evidence=(
                "the step is as many times too long as batches are added, unless the loss is divided by their number",
            ),
            change="(loss / accumulation_steps).backward(); with rows of unequal length divide by all their tokens",
        )


def _every(node: ast.AST | None) -> bool:
    """`if (step + 1) % n == 0`."""
    return isinstance(node, ast.If) and any(
        isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Mod) for inner in ast.walk(node.test)
    )


def _divided(seen: Seen) -> bool:
    script = seen.script
    if any(call.ends("accumulate") for call in script.calls):  # Accelerate divides
        return True
    for node in ast.walk(script.tree):
        about = getattr(node, "value", None) if isinstance(node, (ast.Assign, ast.AugAssign)) else None
        divides = isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Div, ast.Mult))
        if divides and "loss" in ast.unparse(node.target):  # type: ignore[attr-defined]
            return True
        for inner in ast.walk(about or (node if isinstance(node, ast.Call) else ast.Pass())):
            if (
                isinstance(inner, ast.BinOp)
                and isinstance(inner.op, (ast.Div, ast.Mult))
                and "loss" in ast.unparse(inner)
            ):
                return True
    return False


def written(seen: Seen) -> Iterator[Said]:
    """A checkpoint in every step."""
    script = seen.script
    if script.loop is None:
        return
    for call in script.calls:
        saves = call.name in ("torch.save", "safetensors.torch.save_file") or call.ends("save_pretrained", "save_model")
        if saves and script.in_loop(call.node, always=True):
            yield seen.found(
                "too_often",
                "a checkpoint is written in every step",
                call.line,
                change="every few hundred steps, or every so many minutes",
            )
        if call.ends("evaluate", "validate", "eval_model", "estimate_loss") and script.in_loop(call.node, always=True):
            yield seen.found("too_often", "an evaluation in every step", call.line, change="every few hundred steps")
        if call.ends("generate") and script.in_loop(call.node, always=True):
            yield seen.found(
                "too_often",
                "texts are generated in every step",
                call.line,
                severity="note",
                evidence=("as many passes, one after the other, as tokens; right where it learns from them",),
                change="every few hundred steps",
            )


def processes(seen: Seen) -> Iterator[Said]:
    """Machinery for several GPUs."""
    script = seen.script
    for call in script.calls:
        if call.name == "torch.nn.DataParallel" and script.trains:
            yield seen.found(
                "data_parallel",
                "DataParallel copies the model to all GPUs in every step",
                call.line,
                change="one GPU without it; several with DistributedDataParallel (torchrun)",
            )
        if call.get("find_unused_parameters") is True:
            yield seen.found(
                "data_parallel",
                "every step searches for unused parameters",
                call.line,
                severity="note",
                change="find_unused_parameters=False",
            )
    distributed = next(script.called("DistributedDataParallel", "DDP"), None)
    accumulates = any(_every(script.enclosing(c.node, (ast.If,))) for c in script.called("step") if "optim" in c.name)
    if distributed is not None and accumulates and not any(call.ends("no_sync") for call in script.calls):
        yield seen.found(
            "data_parallel",
            "gradients are exchanged for every micro-batch, though only the last needs it",
            distributed.line,
            severity="note",
            change="with model.no_sync(): for all but the last",
        )


def device(seen: Seen) -> Iterator[Said]:
    """A loop that never leaves the CPU."""
    script = seen.script
    if script.loop is None:
        return
    moved = (
        any(call.ends("cuda", "to", "prepare", "setup", "initialize") for call in script.calls)
        or "cuda" in script.text
        or "device" in script.text
    )
    set_ = [one for one in script.assignments if one.target == "device"]
    on_it = [one for one in set_ if one.known == "cpu" or "device('cpu')" in ast.unparse(one.node)]
    for one in on_it[:1]:
        if len(on_it) == len(set_) and not any("cuda" in ast.unparse(one.node) for one in set_):
            yield seen.found("on_cpu", "it trains on the CPU", one.line, change='device = "cuda"', severity="error")
            return
    if not moved and not script.managed:
        yield seen.found(
            "on_cpu",
            "nothing is moved to a GPU",
            script.loop.lineno,
            change='model.to("cuda"), and each batch to the same device',
        )


LOOKS = (waits, one_by_one, kept, update, written, processes, device)
