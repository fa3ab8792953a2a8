"""What others measured on their GPUs and published, beside the trace of the same step.

    python benchmarks/memory_published.py                # results/memory-published.json
    python benchmarks/memory_published.py --only ViT     # rows whose name begins so, printed alone

Only what was published with its code counts: model, batch, length, precision, optimizer, and which of torch's counters
was read. The step is written anew from that code (memory_published_models.py) and traced with the torch that is
installed here, which is not theirs. Nothing was fitted: a row that is far off stays, with the reason as far as known.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from memory_published_models import Book, BookGPT, ViTLarge
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Adafactor, BertConfig, BertForSequenceClassification

from ganeum.plan import predict_memory

RESULT = Path(__file__).parent / "results" / "memory-published.json"
GIB, GB = 2**30, 10**9
RASCHKA = "https://github.com/rasbt/LLMs-from-scratch/tree/main/ch05/10_llm-training-speed"
VIT = "https://github.com/rasbt/pytorch-memory-optim/blob/main/logs.md"
BERT = "https://huggingface.co/docs/transformers/v4.27.2/en/perf_train_gpu_one"
A100, V100 = "A100 SXM4 40GB", "Tesla V100 SXM2 16GB"

Build, Step = Callable[[], Any], Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    """One figure that was published.

    Attributes:
        unit: bytes in one of the figure's.
        counter: ``reserved``: the most; ``left``: allocated when the step is over.
        build: of nothing; ``step`` of what it gave.
        torch: the version they had, as far as they say.
        note: what is known of why it is off.
    """

    name: str
    source: str
    figure: float
    unit: int
    counter: str
    build: Build
    step: Step
    torch: str
    gpu: str = A100
    note: str = ""


def _ids(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.long, device="cuda")


def book(
    shape: Book, *, batch: int = 8, bf16: bool = False, fused: bool = False, compiled: bool = False
) -> tuple[Build, Step]:
    """Raschka's training loop: a step, an evaluation of one batch of each split, and some words."""

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model: Any = BookGPT(shape)
        if compiled:
            model = torch.compile(model)
        model.to("cuda")
        if bf16:
            model.to(torch.bfloat16)
        return model, torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.1, fused=fused or None)

    def loss_of(model: nn.Module) -> Tensor:
        ids, targets = _ids(batch, shape.length), _ids(batch, shape.length)
        return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())

    def step(built: tuple[nn.Module, torch.optim.Optimizer]) -> None:
        model, optimizer = built
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            for _ in range(2):
                loss_of(model).item()
            for length in () if compiled else (4, 53):
                model(_ids(1, length))[:, -1, :].argmax(dim=-1, keepdim=True)
        model.train()

    return build, step


def vit(*, batch: int, precision: str, accumulation: int = 1) -> tuple[Build, Step]:
    """ViT-L/16 finetuned by Raschka: ``zero_grad`` behind the forward pass; where he accumulates, at the end."""
    true = torch.bfloat16 if precision == "bf16-true" else torch.float32

    def build() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        model = ViTLarge().to("cuda", true)
        scaler = torch.amp.GradScaler("cuda") if precision == "16-mixed" else None
        return model, torch.optim.Adam(model.parameters(), lr=5e-5), scaler

    def step(built: tuple[nn.Module, torch.optim.Optimizer, Any]) -> None:
        model, optimizer, scaler = built
        model.train()
        for _ in range(accumulation):
            images, targets = torch.zeros(batch, 3, 224, 224, device="cuda").to(true), _ids(batch)
            with torch.autocast("cuda", dtype=torch.float16) if scaler else nullcontext():
                logits = model(images)
            logits = logits.float()
            loss = F.cross_entropy(logits, targets)
            if accumulation == 1:
                optimizer.zero_grad()
            (scaler.scale(loss) if scaler else loss / accumulation).backward()
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        if accumulation > 1:
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16) if scaler else nullcontext():
            model(images)

    return build, step


def bert(*, batch: int, accumulation: int = 1, adafactor: bool = False) -> tuple[Build, Step]:
    """bert-large with a head for two classes, 512 tokens, as transformers' Trainer of January 2022 took a step."""

    def build() -> tuple[Any, Any]:
        sizes = {"hidden_size": 1_024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4_096}
        model = BertForSequenceClassification._from_config(BertConfig(**sizes), attn_implementation="eager").to("cuda")
        if adafactor:
            return model.train(), Adafactor(model.parameters(), lr=5e-5, scale_parameter=False, relative_step=False)
        return model.train(), torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, foreach=False)

    def step(built: tuple[Any, Any]) -> None:
        model, optimizer = built
        for _ in range(accumulation):
            (model(input_ids=_ids(batch, 512), labels=_ids(batch)).loss / accumulation).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
        optimizer.step()
        model.zero_grad(set_to_none=False)

    return build, step


BF16 = {"bf16": True, "fused": True}
ON_THE_FLY = Book(kept_mask=False)
TORCH_LAYERS = replace(ON_THE_FLY, torch_layers=True)
FLASH = replace(TORCH_LAYERS, flash=True)
PADDED = replace(FLASH, vocabulary=50_304)


PADDING = (
    "Inductor measures on the GPU whether padding the odd vocabulary pays, and there it seems to have: "
    "about one padded copy of the logits more"
)
CONVOLUTION = (
    "not explained: the patches are a convolution, whose workspace cuDNN chooses when it runs and no trace has, and "
    "that torch's flash attention was another one"
)
SCORES = "not explained: what is missing is about as much as one more tensor of attention scores in each layer would be"


def _raschka(name: str, figure: float, made: tuple[Build, Step], counter: str = "reserved", note: str = "") -> Case:
    return Case(f"GPT-2 124M, {name}", RASCHKA, figure, GIB, counter, *made, torch="2.6.0+cu124", note=note)


def _vit(name: str, figure: float, made: tuple[Build, Step]) -> Case:
    theirs = "2.1.0.dev20230623+cu118"
    return Case(f"ViT-L/16, {name}", VIT, figure, GB, "reserved", *made, torch=theirs, note=CONVOLUTION)


def _bert(name: str, occupied: int, made: tuple[Build, Step]) -> Case:
    """``occupied``: MB by NVML, of which 1,343 were so after the first tensor, which reserves 2 itself."""
    figure = (occupied - 1_343 + 2) / 1_024
    return Case(f"BERT-large, {name}", BERT, figure, GIB, "reserved", *made, torch="of 2022", gpu=V100, note=SCORES)


CASES = (
    _raschka("fp32, all by hand", 26.2617, book(Book())),
    _raschka("the same, what is left after it", 2.5069, book(Book()), "left"),
    _raschka("mask made each time", 26.2422, book(ON_THE_FLY)),
    _raschka("fused AdamW", 26.2422, book(ON_THE_FLY, fused=True)),
    _raschka("cast to bf16", 13.7871, book(ON_THE_FLY, **BF16)),
    _raschka("torch's norm and GELU", 11.5645, book(TORCH_LAYERS, **BF16)),
    _raschka("flash attention", 5.9004, book(FLASH, **BF16)),
    _raschka("compiled", 6.1875, book(FLASH, **BF16, compiled=True), note=PADDING),
    _raschka("compiled, vocabulary 50,304", 5.8906, book(PADDED, **BF16, compiled=True)),
    _raschka("compiled, batch 32", 22.5078, book(PADDED, **BF16, compiled=True, batch=32)),
    _vit("fp32, batch 64", 26.79, vit(batch=64, precision="32")),
    _vit("fp16 autocast, batch 64", 18.21, vit(batch=64, precision="16-mixed")),
    _vit("cast to bf16, batch 64", 13.82, vit(batch=64, precision="bf16-true")),
    _vit("cast to bf16, batch 16", 5.69, vit(batch=16, precision="bf16-true")),
    _vit("cast to bf16, batch 4, accumulating", 3.91, vit(batch=4, precision="bf16-true", accumulation=4)),
    _bert("batch 4", 14_949, bert(batch=4)),
    _bert("batch 1, accumulating", 8_681, bert(batch=1, accumulation=4)),
    _bert("batch 4, Adafactor", 12_295, bert(batch=4, adafactor=True)),
)


def traced(case: Case) -> dict[str, Any]:
    """A row: what was published, what the trace says, and how far it is off."""
    begun = time.perf_counter()
    found = predict_memory(case.build, case.step, gpu=case.gpu)
    counters = {"reserved": found.peak_reserved, "left": found.curve[-1].allocated}
    said = counters[case.counter] / case.unit
    kept = ("name", "source", "counter", "figure", "unit", "torch", "gpu", "note")
    return {key: getattr(case, key) for key in kept} | {
        "traced": said,
        "off": said / case.figure - 1,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def section(found: dict[str, Any]) -> list[str]:
    """For docs/accuracy.md."""
    rows = found["rows"]
    near = sum(abs(row["off"]) <= 0.01 for row in rows)
    text = [
        "## Published by others",
        "",
        "What others measured on GPUs and published with the code that they ran, beside `predict_memory` of the same "
        f"step: {near} of {len(rows)} within 1%. Made by `{found['command']}` with torch {found['torch']} on "
        f"{found['date']}. Their code was written anew, and traced with today's torch, not theirs. Nothing was fitted, "
        "and nothing that was traced was left out but minGPT's, which do not say their batch. Not traced, for want of "
        "detail or of time: a fourth figure of BERT's, litgpt's and torchtune's tables, modded-nanogpt's logs. The "
        "figure is what was reserved at most by torch's account (of "
        "GPT-2 what it held after the epoch, which gives nothing back); of BERT it is what NVML said, without the "
        "1,343 MB that it said before the model, so libraries that load later count too. Which card had ViT, and which "
        "A100 had GPT-2, is not said: 40 GB are assumed.",
        "",
        "| | torch | GPU | published | traced | off |",
        "|---|---|---|--:|--:|--:|",
    ]
    marks: dict[str, int] = {}
    for row in rows:
        unit, digits = ("GiB", 3) if row["unit"] == GIB else ("GB", 2)
        mark = f" ({marks.setdefault(row['note'], len(marks) + 1)})" if row["note"] else ""
        card = "V100" if row["gpu"] == V100 else "A100"
        text.append(
            f"| [{row['name']}]({row['source']}){mark} | {row['torch']} | {card} "
            f"| {row['figure']:.{digits}f} {unit} | {row['traced']:.{digits}f} | {row['off']:+.2%} |"
        )
    return [*text, "", *(f"{number}. {note[0].upper()}{note[1:]}." for note, number in marks.items()), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name begins so; nothing is written then")
    given = parser.parse_args()
    made = {"command": "python benchmarks/memory_published.py", "torch": torch.__version__}
    rows = []
    for case in CASES:
        if case.name.startswith(given.only):
            torch._dynamo.reset()
            rows.append(row := traced(case))
            figures = f"{row['figure']:10.4f} {row['traced']:10.4f} {row['off']:+8.2%} {row['seconds']:6} s"
            print(f"{row['name']:48}{figures}", flush=True)
    if not given.only:
        found = made | {"date": date.today().isoformat(), "rows": rows}
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
