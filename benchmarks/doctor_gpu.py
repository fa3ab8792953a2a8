"""Does the doctor's own ablation find on this GPU what is known of GPUs? TF32, bf16, attention, compiling,
checkpointing and a vocabulary that is no multiple of 64, each by the remedy that `ganeum doctor run` would take.

    python benchmarks/doctor_gpu.py                       # under 90 s; says so and ends where there is no GPU
    python benchmarks/doctor_gpu.py --device cpu          # the same path on a CPU, for what a CPU has of it

The training is transformers' GPT-2 as a careless script has it: fp32 products, attention that writes its scores down,
blocks computed twice, 50,257 tokens, not compiled. Each remedy is measured alone against it, by turns, in processes of
their own, and all but compiling together at the end; the vocabulary also on top of all others, where products are quick
enough to show it. Fails when a remedy is not offered, cannot be done, or all of them together make it no faster.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent.parent / "src")]

CAUSES = ("tf32_off", "fp32", "eager_attention", "checkpointing_for_nothing", "odd_vocabulary", "not_compiled")
ON_A_CPU = ("fp32", "eager_attention", "checkpointing_for_nothing")
CONTEST_S = 4.0


def build() -> Any:
    """GPT-2 as a careless script trains it; DOCTOR_GPU_DEVICE says where."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from ganeum.doctor import Training

    device = os.environ.get("DOCTOR_GPU_DEVICE", "cuda")
    large = device != "cpu"
    shape = {"n_layer": 6, "n_embd": 768, "n_head": 12} if large else {"n_layer": 2, "n_embd": 128, "n_head": 4}
    rows, length, vocabulary = (4, 1024, 50_257) if large else (2, 256, 1_009)
    torch.manual_seed(0)
    config = GPT2Config(
        **shape, vocab_size=vocabulary, n_positions=length, use_cache=False, attn_implementation="eager"
    )
    model = GPT2LMHeadModel(config).to(device).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = [torch.randint(vocabulary, (rows, length), device=device) for _ in range(8)]

    def step(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    batches = [{"input_ids": one, "labels": one} for one in ids]
    return Training(model=model, batches=batches, step=step, optimizer=optimizer, fresh=True)


def measured(causes: Sequence[str], limit_s: float) -> dict[str, Any]:
    """Ratios of each cause's remedy, alone; the vocabulary's also on top of the others; all together."""
    from ganeum.doctor.measured.contest import Ratio, contest
    from ganeum.doctor.measured.remedies import of_training
    from ganeum.doctor.measured.worker import Gone, Workers

    def told(ratio: Ratio) -> dict[str, Any]:
        return {"times": ratio.median, "interval": [ratio.low, ratio.high], "tokens_per_second": list(ratio.rates)}

    began, results, missing, failed = time.monotonic(), {}, [], []
    with Workers(f"{HERE}:build") as workers:
        base = workers.start()
        facts = dict(base.facts())
        workers.learn(base)
        with workers.start() as twin:
            results["itself"] = told(contest(base, twin, seconds=CONTEST_S))
        offered = {remedy.cause: remedy for remedy in reversed(of_training(facts))}
        missing = [cause for cause in causes if cause not in offered]
        chosen = [offered[cause] for cause in causes if cause in offered]
        for remedy in chosen:
            if time.monotonic() - began > limit_s:
                failed.append(f"{remedy.name}: no time was left")
                continue
            try:
                with workers.start([remedy]) as changed:
                    results[remedy.cause] = told(contest(base, changed, seconds=CONTEST_S))
            except Gone as gone:
                failed.append(f"{remedy.name}: {gone}")
            print(f"{remedy.name}: {results.get(remedy.cause, failed[-1:])}", flush=True)
        # bf16 in place of TF32, of which only one can be; compiling takes longest to start, and was tried alone
        whole = [
            remedy for remedy in chosen if remedy.cause in results and remedy.cause not in ("tf32_off", "not_compiled")
        ]
        fast = [remedy for remedy in whole if remedy.cause != "odd_vocabulary"]
        try:
            with workers.start(whole) as best:
                results["together"] = told(contest(base, best, seconds=CONTEST_S))
                if len(whole) > len(fast):
                    with workers.start(fast) as without:
                        results["odd_vocabulary, the rest mended"] = told(contest(without, best, seconds=CONTEST_S))
        except Gone as gone:
            failed.append(f"together: {gone}")
    return {"results": results, "missing": missing, "failed": failed, "seconds": time.monotonic() - began}


def main() -> int:
    """Exit status 1 where something of it did not work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=70.0, help="seconds after which no new remedy is begun")
    parser.add_argument("--out", type=Path, help="the results as JSON")
    asked = parser.parse_args()
    import torch

    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing is measured")
        return 0
    from ganeum.doctor.confirmed import Seen, remember

    os.environ["DOCTOR_GPU_DEVICE"] = asked.device
    found = measured(CAUSES if asked.device == "cuda" else ON_A_CPU, asked.limit)
    gpu = torch.cuda.get_device_name() if asked.device == "cuda" else None
    machine = {"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda, "date": time.strftime("%Y-%m-%d")}
    result = {"machine": machine} | found
    print(json.dumps(result, indent=2))
    if gpu is not None:
        kept = {cause: found["results"][cause] for cause in CAUSES if cause in found["results"]}
        of, date = "a GPT-2 of 6 layers", machine["date"]
        remember(gpu, {cause: Seen(one["times"], *one["interval"], of, date) for cause, one in kept.items()})
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2) + "\n")
    for cause in found["missing"]:
        print(f"FAILED: the doctor offers no remedy for {cause}", file=sys.stderr)
    for why in found["failed"]:
        print(f"FAILED: {why}", file=sys.stderr)
    slower = asked.device == "cuda" and found["results"].get("together", {"interval": [0.0]})["interval"][0] < 1
    if slower:
        print("FAILED: all remedies together make it no faster", file=sys.stderr)
    return 1 if found["missing"] or found["failed"] or slower else 0


if __name__ == "__main__":
    sys.exit(main())
