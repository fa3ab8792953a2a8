"""How rows come to the GPU: tokenising, padding, windows, loader processes, slow places."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ganeum import units
from ganeum.doctor.audit.script import TRAINERS, Seen
from ganeum.doctor.audit.settings import MANY_WORKERS, Nothing, Said
from ganeum.doctor.audit.source import Call, Script

TOKENIZERS = ("tokenizer", "tok", "tokenize", "encode", "encode_plus", "batch_encode_plus", "encode_ordinary")
SLOW_PLACES = {
    "/mnt/c/": "Windows' disk seen from WSL",
    "/mnt/d/": "Windows' disk seen from WSL",
    "/content/drive/": "Google Drive",
    "\\\\": "a network share",
    "/gdrive/": "Google Drive",
    "s3://": "a bucket",
    "gs://": "a bucket",
}
OPENERS = (
    "open",
    "load_dataset",
    "read_csv",
    "read_json",
    "memmap",
    "load",
    "from_file",
    "Path",
    "save",
    "from_pretrained",
    "load_from_disk",
    "save_pretrained",
    "TrainingArguments",
    "Seq2SeqTrainingArguments",
    "DataLoader",
)
FEW_ROWS, SHORT_ROW = 2, 16
SHORT = re.compile(r"gradient_checkpointing|fully_shard|fsdp|load_in_[48]bit", re.IGNORECASE)  # of memory
LENGTHS = ("max_length", "context_length", "block_size", "seq_len", "sequence_length", "window_size", "ctx_len")


def tokenises(call: Call) -> bool:
    """Whether it turns text into tokens."""
    owner, _, last = call.name.rpartition(".")
    if last == "encode":  # of a tokenizer, not of a text: `"…".encode("utf-8")`
        return any(sign in owner.lower() for sign in ("tok", "enc", "bpe", "sp"))
    return last in TOKENIZERS or call.name.endswith("tokenizer()")


def in_items(seen: Seen) -> Iterator[Said]:
    """Tokenising in `__getitem__`, in a collator or in the loop over batches."""
    script = seen.script
    for call in script.calls if seen.of_text else ():
        if not tokenises(call):
            continue
        around = script.inside(call.node)
        collating = "__getitem__" in around or "collate" in around.lower()
        collating = collating or (around.endswith("__call__") and "coll" in around.lower())
        if collating or (script.loop is not None and script.in_loop(call.node, always=True)):
            yield seen.found(
                "loader",
                "text is tokenised anew for every batch, in every epoch",
                call.line,
                evidence=(f"in {around}" if around else "in the loop over batches",),
                change="tokenise once before training (dataset.map, or a file of token ids), read ids in the loop",
            )
            return


def loaders(seen: Seen) -> Iterator[Said]:
    """DataLoader's own settings."""
    script = seen.script
    items = any("__getitem__" in script.inside(call.node) and tokenises(call) for call in script.calls)
    for call in script.calls:
        if call.name not in ("torch.utils.data.DataLoader", "torch.utils.data.dataloader.DataLoader", "DataLoader"):
            continue
        rows = call.get("batch_size", call.values[1] if len(call.values) > 1 else 1)
        if (
            script.trains
            and trains_on(_name(script, call))
            and isinstance(rows, int)
            and rows <= FEW_ROWS
            and "batch_sampler" not in call.keywords
            and not call.spread
        ):
            yield seen.found(
                "small_micro_batch",
                f"{units.things(rows, 'row')} at once",
                call.line,
                severity="note" if SHORT.search(script.text) else "warning",
                change="more rows at once while they fit; for a smaller batch the learning rate was another",
            )
        workers = call.get("num_workers", 0)
        name = _name(script, call)
        trains = trains_on(name)
        if workers == 0 and items and trains:
            yield seen.found(
                "loader",
                "the training itself tokenises, since no loader process does",
                call.line,
                severity="note",
                change="num_workers=2 to 4, or rows that are tokenised beforehand",
            )
        if isinstance(workers, int) and workers > MANY_WORKERS:
            yield seen.found(
                "oversubscription",
                f"{workers} loader processes",
                call.line,
                severity="note",
                evidence=("each has threads of its own, which share the cores",),
                change="2 to 4, and OMP_NUM_THREADS=1",
            )
        if isinstance(workers, int) and workers > 0 and call.get("persistent_workers", False) is False:
            yield seen.found(
                "worker_start",
                "the loader's processes are started anew every epoch",
                call.line,
                severity="note",
                change="persistent_workers=True",
            )
        if trains and call.get("shuffle", False) is False and not {"sampler", "batch_sampler"} & set(call.keywords):
            iterable = "iterable" in script.text.lower() or "streaming" in script.text
            if len(call.values) < 3 and not iterable and "train" in name.lower():
                yield seen.found(
                    "sorted_data",
                    "training rows come in the order of their file",
                    call.line,
                    evidence=("sorted text teaches badly, and sorted lengths run out of memory late",),
                    change="shuffle=True",
                )
        if call.get("pin_memory") is True:
            yield Nothing("pin_memory=True: harmless; token ids are kilobytes a step")
        if call.get("prefetch_factor") == 2:
            yield Nothing("prefetch_factor=2: the default")


def trains_on(name: str) -> bool:
    """Whether a loader of that name is the training's."""
    return any(word in name.lower() for word in ("train", "loader")) and not _evaluates(name)


def sleeps(seen: Seen) -> Iterator[Said]:
    """Somebody waits on purpose."""
    script = seen.script
    for call in script.calls:
        around = script.inside(call.node)
        if call.name == "time.sleep" and ("__getitem__" in around or "collate" in around or script.in_loop(call.node)):
            yield seen.found("loader", "it sleeps for every batch", call.line, change="without it")


def objects(seen: Seen) -> Iterator[Said]:
    """A data set of Python's own objects, and loader processes that copy it."""
    script = seen.script
    forked = [
        c for c in script.called("DataLoader") if isinstance(c.get("num_workers", 0), int) and c.get("num_workers", 0)
    ]
    if not forked:
        return
    for one in script.assignments:
        lists = isinstance(getattr(one.node, "value", None), (ast.List, ast.ListComp, ast.Dict, ast.DictComp))
        around = script.inside(one.node)
        if lists and one.target.startswith("self.") and "Dataset" in around and not one.target.endswith("[]"):
            filled = [c for c in script.calls if c.name == f"{one.target}.append"]
            if filled or isinstance(one.node.value, (ast.ListComp, ast.DictComp)):  # type: ignore[attr-defined]
                yield seen.found(
                    "loader_copies",
                    "loader processes end up with a copy of this list each",
                    one.line,
                    severity="note",
                    change="a tensor, a numpy array or a memory map instead of a list of objects",
                )
                return


def padding(seen: Seen) -> Iterator[Said]:
    """Rows filled up to a fixed length; and what sounds like it."""
    script = seen.script
    filled = [c for c in script.calls if c.get("padding") == "max_length" and _fills_text(script, c)]
    longest = max(filled, key=lambda call: _length(call) or 0, default=None)
    for call in script.calls:
        pads = call.get("padding")
        if call is longest and script.trains and seen.of_text:
            length = _length(call)
            yield seen.found(
                "padding",
                "every row is filled up to " + (f"{length} tokens" if length else "the longest that is allowed"),
                call.line,
                change="padding=False here, and a collator that pads to the longest of each batch; group_by_length "
                "or packing for what is left",
            )
        elif pads is False and tokenises(call) and _collated(seen):
            yield Nothing(
                "padding=False in the tokenizer: the collator of the Trainer pads each batch to its longest "
                "row all the "
                'same, which is what padding="longest" in a collator means'
            )
        if call.get("add_special_tokens") is True:
            yield Nothing("add_special_tokens=True: the default")


def _fills_text(script: Script, call: Call) -> bool:
    """Whether it is text that is filled up, further than a batch needs, and far enough to matter."""
    other = any(sign in call.name.lower() for sign in ("processor", "feature", "image", "audio", "clip"))
    said = call.written.get("max_length", "")
    own = [one for one in script.assignments if said.startswith(one.target)]  # the longest of this batch, say
    computed = "max(" in said or any("max(" in ast.unparse(one.node) for one in own)
    length = _length(call)
    return not other and not computed and (length is None or length > SHORT_ROW)


def _length(call: Call) -> int | None:
    length = call.get("max_length")
    return length if isinstance(length, int) and length > 0 else None


def _collated(seen: Seen) -> bool:
    return any(
        call.ends(*TRAINERS) or call.name.rpartition(".")[2].startswith("DataCollator") for call in seen.script.calls
    )


def windows(seen: Seen) -> Iterator[Said]:
    """Windows that start closer together than they are long."""
    script = seen.script
    for call in script.calls:
        stride, length = call.get("stride"), next((call.get(name) for name in LENGTHS if name in call.keywords), None)
        if not (isinstance(stride, int) and isinstance(length, int)) or isinstance(stride, bool):
            continue
        if call.get("truncation") in ("only_first", "only_second"):  # an answer in a text: no window may cut it
            continue
        if call.get("return_overflowing_tokens") is True:  # of tokenizers, how many tokens two windows share
            stride = length - stride
        elif tokenises(call):
            continue
        if 0 < stride < length:
            yield _overlap(seen, call.line, stride, length)
            return
    for call in script.calls:
        if call.name == "range" and len(call.values) == 3 and isinstance(call.node.args[1], ast.BinOp):
            stop, step = call.node.args[1], call.values[2]
            length = script.value(stop.right)
            over = "len(" in ast.unparse(stop.left) or "num" in ast.unparse(stop.left)
            whole = isinstance(stop.op, ast.Sub) and isinstance(step, int) and isinstance(length, int)
            if over and whole and 0 < step < length:
                yield _overlap(seen, call.line, step, length)
                return


def _overlap(seen: Seen, line: int, stride: int, length: int) -> Said:
    return seen.found(
        "overlapping_windows",
        f"windows of {length} tokens start {stride} apart: an epoch has a token {length / stride:.3g} times",
        line,
        change=f"stride = {length}, and as many epochs as the held-out loss wants",
        sure="computed",
        size=length / stride,
        unit="times the steps of an epoch",
    )


def places(seen: Seen) -> Iterator[Said]:
    """Data on a mount that is slow."""
    for call in seen.script.calls:
        if not call.ends(*OPENERS):
            continue
        for value in (*call.values, *call.keywords.values()):
            for start, what in SLOW_PLACES.items():
                if isinstance(value, str) and value.startswith(start):
                    yield seen.found(
                        "slow_disk",
                        f"{what} is read or written directly",
                        call.line,
                        change="copy it to a local disk before training",
                    )


def _name(script: Script, call: Call) -> str:
    """The name that it is assigned to, with the function it is made in."""
    node = script.parents.get(call.node)
    names = [script.dotted(target) for target in node.targets] if isinstance(node, ast.Assign) else []
    data = ast.unparse(call.node.args[0]) if call.node.args else ""
    return " ".join([*names, data])


def _evaluates(name: str) -> bool:
    return any(word in name.lower() for word in ("val", "test", "eval", "dev"))


LOOKS = (in_items, loaders, sleeps, objects, padding, windows, places)
