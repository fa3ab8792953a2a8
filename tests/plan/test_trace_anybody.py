"""Modules and steps that this project has never seen, traced; and said clearly where that cannot be done."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from somebodys import conv, picker, reader, unet, vision
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan import predict_memory
from ganeum.plan.trace.anybody import trace
from ganeum.plan.trace.events import Allocation, live
from ganeum.plan.trace.step import stage

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
A100 = card("A100 PCIe 40GB")


MODELS = {"ConvNet": conv, "Picker": picker, "U-Net": unet, "LSTM": reader, "ViT": vision}
PLAIN = ("ConvNet", "Picker")  # whose kernels on a CPU take nothing besides: oneDNN's convolutions and LSTM do


def measured(build: Callable[[], Any], step: Callable[[Any], Any]) -> int:
    """The most that building and two steps hold at one time, as torch's profiler sees it."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        built = build()
        for _ in range(2):
            step(built)
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    ordered = sorted(events, key=lambda event: event.start_ns())
    return max(itertools.accumulate(int(event.nbytes()) for event in ordered))


@pytest.mark.parametrize("name", PLAIN)
def test_any_step_has_the_peak_of_a_real_one(name: str) -> None:
    """On a CPU, within 0.1 %."""
    build, step = MODELS[name]("cpu")
    found = trace(build, step, CPU)
    assert measured(build, step) == pytest.approx(max(live(found.events)), rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_any_step_is_traced_for_a_gpu_that_is_not_there(name: str) -> None:
    """Its weights are on the card, and its optimizer's state; afterwards torch says that there is no GPU, as before."""
    before = torch.cuda.is_available()
    found = trace(*MODELS[name]("cuda"), A100)
    kinds = {event.kind for event in found.events if isinstance(event, Allocation)}
    assert {"weights", "gradients", "optimizer", "activations"} <= kinds
    assert before == torch.cuda.is_available()


@pytest.mark.parametrize("name", ["ConvNet", "Picker", "U-Net", "LSTM"])
def test_torchs_own_tracker_finds_the_same_peak(name: str) -> None:
    """MemTracker of torch.distributed, on the same two steps on a GPU that is not there, to the byte; it rounds each
    tensor up to 512 bytes, and knows nothing of what kernels take for themselves."""
    tracker = pytest.importorskip("torch.distributed._tools.mem_tracker").MemTracker()
    build, step = MODELS[name]("cuda")
    with stage(A100) as scene:
        built, recorder = build(), scene.recorder
        parts = (
            list((built if isinstance(built, dict) else vars(built)).values()) if name in ("U-Net", "LSTM") else built
        )
        tracker.track_external(*parts)
        state = [t for kept in parts[1].state.values() for t in kept.values()]  # Adagrad has some from the start
        recorder.present([*(p.detach() for p in parts[0].parameters()), *parts[0].buffers(), *state], "weights", "")
        with tracker, recorder:
            step(built)
            tracker.reset_mod_stats()
            step(built)
        events = recorder.finished()
    kernels = {e.key for e in events if isinstance(e, Allocation) and e.operation.endswith(("inside", "products"))}
    rounded = [replace(e, bytes=-(-e.bytes // 512) * 512) if isinstance(e, Allocation) else e for e in events]
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cuda:0")]["Total"]
    assert peak == max(live(e for e in rounded if e.key not in kernels))


def test_a_loss_scaler_and_autocast_work_as_on_the_gpu() -> None:
    """Products in fp16 take half: 64 × 1,024 × 2 bytes."""

    def build() -> Any:
        model = nn.Linear(1_024, 1_024, bias=False).cuda()
        return model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cuda")

    def step(built: Any) -> None:
        model, optimizer, scaler = built
        with torch.autocast("cuda", dtype=torch.float16):
            out = model(torch.randn(64, 1_024, device="cuda"))
        scaler.scale(out.float().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    found = trace(build, step, A100)
    products = [e for e in found.events if isinstance(e, Allocation) and e.operation == "aten::mm"]
    assert 64 * 1_024 * 2 == products[0].bytes
    assert {"optimizer"} <= {e.kind for e in found.events if isinstance(e, Allocation)}


def test_what_usually_stands_around_a_step_works() -> None:
    """A loader with workers and pinned memory, streams, events, a check for NaN, clipping, a GRU and a sparse table."""
    data = torch.utils.data.TensorDataset(torch.randn(16, 8), torch.zeros(16, dtype=torch.int64))

    def build() -> Any:
        return nn.GRU(8, 8).cuda(), nn.Embedding(50, 8, sparse=True).cuda()

    def step(built: Any) -> None:
        gru, table = built
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        start.record()
        for x, y in torch.utils.data.DataLoader(data, batch_size=8, num_workers=2, pin_memory=True):
            with torch.cuda.stream(stream):
                rows = x.cuda(non_blocking=True)[:, None] + table(y.cuda())[:, None]
                loss = gru(rows)[0].square().mean()
            if torch.isnan(loss):
                raise ValueError("the loss is no number")
            loss.backward()
            nn.utils.clip_grad_norm_(gru.parameters(), 1.0)
        torch.cuda.synchronize()

    found = trace(build, step, A100)
    assert found.uncertain == (
        "cuDNN's LSTM and GRU keep memory of their own for the backward pass; traced is their plain form",
    )


def test_what_a_step_calls_besides_does_nothing(tmp_path: Path) -> None:
    """Seeds, statistics, marks, a formatted loss, assertions, distributions; a checkpoint that is there stays whole."""
    kept = tmp_path / "best.pt"
    kept.write_bytes(b"a checkpoint")

    def step(model: nn.Module) -> None:
        state = torch.cuda.get_rng_state()
        torch.cuda.nvtx.range_push("step")  # type: ignore[no-untyped-call]
        scores = model(torch.randn(2, 4, device="cuda"))
        assert torch.equal(scores, scores)
        assert torch.allclose(scores, scores)
        choices = torch.distributions.Categorical(logits=scores)
        loss = -choices.log_prob(choices.sample()).mean()  # type: ignore[no-untyped-call]
        loss.backward()
        assert torch.cuda.memory_stats()["allocated_bytes.all.peak"] >= 0
        torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]
        torch.cuda.set_rng_state(state)
        assert f"{loss:.2f}" == "0.00"
        torch.save(model.state_dict(), kept)

    names = torch.save, Tensor.__format__, torch.cuda.get_rng_state
    assert trace(lambda: nn.DataParallel(nn.Linear(4, 4)).cuda(), step, A100).events
    assert kept.read_bytes() == b"a checkpoint"
    assert names == (torch.save, Tensor.__format__, torch.cuda.get_rng_state)


def test_a_function_that_is_compiled_is_traced() -> None:
    """It stands in the file, not in what ``build`` gives."""
    forward = torch.compile(lambda model, x: model(x).relu().mean())

    def step(model: nn.Module) -> None:
        forward(model, torch.randn(2, 4, device="cuda")).backward()

    assert any("padded" in said for said in trace(lambda: nn.Linear(4, 4).cuda(), step, A100).uncertain)


def test_a_transformer_that_evaluates_has_the_peak_of_a_real_one() -> None:
    """Its kernel for a whole layer would hide all between."""

    def build() -> nn.Module:
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2).eval()

    def step(model: nn.Module) -> None:
        with torch.no_grad():
            model(torch.randn(8, 32, 64))

    found = trace(build, step, CPU)
    assert measured(build, step) == pytest.approx(max(live(found.events)), rel=1e-3)
    assert found.uncertain == ()

    def on_a_gpu(model: nn.Module) -> None:
        with torch.no_grad():
            model(torch.randn(8, 32, 64, device="cuda"))

    told = [
        f"in evaluation a run may take one kernel for a whole {name}, whose workspace is not known: traced in its parts"
        for name in ("TransformerEncoderLayer", "MultiheadAttention")
    ]
    assert told == list(trace(lambda: build().cuda(), on_a_gpu, A100).uncertain)
    assert trace(lambda: build().cuda().train(), on_a_gpu, A100).uncertain == ()


def test_what_decides_by_its_numbers_is_said() -> None:
    """LBFGS looks at losses and gradients to know whether to go on, on a CPU too."""

    def build() -> tuple[nn.Module, torch.optim.LBFGS]:
        model = nn.Linear(4, 4)
        return model, torch.optim.LBFGS(model.parameters(), max_iter=2)

    def step(built: tuple[nn.Module, torch.optim.LBFGS]) -> None:
        def loss() -> Tensor:
            built[1].zero_grad()
            nats = built[0](torch.randn(2, 4)).square().mean()
            nats.backward()
            return nats

        built[1].step(loss)

    (said,) = trace(build, step, CPU).uncertain
    assert said.startswith("LBFGS decides by its numbers when it stops")


def test_a_number_that_is_read_is_said() -> None:
    """Logging the loss works; that it was a guess stands beside the trace, with the line."""

    def step(model: nn.Module) -> None:
        loss = model(torch.randn(2, 4, device="cuda")).sum()
        loss.backward()
        print(f"loss {loss.item():.3f}", loss, loss.cpu())

    found = trace(lambda: nn.Linear(4, 4).cuda(), step, A100)
    (said,) = found.uncertain
    assert said.startswith("a number is read from the device (test_trace_anybody.py:")


def test_counted_numbers_are_followed() -> None:
    """Optimizers of torch 2.11 count their updates on the card where that is the default device, and divide by them."""

    def step(_: None) -> None:
        with torch.device("cuda"):
            counter, beside = torch.tensor(0.0), torch.zeros(())
        counter += 1
        torch._foreach_add_([counter, beside], 1)
        torch._foreach_add_([counter, beside], torch.tensor(1.0), alpha=1.0)
        assert (counter.item(), beside.item()) == (3, 2)

    assert trace(lambda: None, step, A100).uncertain == ()


def test_predict_memory_replays_it() -> None:
    """A weight of 4 MiB, its gradient and two moments: 16 MiB of tensors at least, in blocks of the allocator."""

    def build() -> Any:
        model = nn.Linear(1_024, 1_024, bias=False).cuda()
        return model, torch.optim.AdamW(model.parameters(), fused=True)

    def step(built: Any) -> None:
        built[0](torch.randn(2, 1_024, device="cuda")).sum().backward()
        built[1].step()

    found = predict_memory(build, step, gpu="A100 PCIe 40GB")
    assert 16 * 2**20 <= found.peak_allocated <= found.peak_reserved
    assert found.uncertain == ()
