"""Where runs are put: what a driver says there is, what is free of it, and what a run's plan says that it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ganeum.config import load
from ganeum.config.write import to_yaml
from ganeum.hardware.device import Device
from ganeum.queue import needs
from ganeum.queue import places as places_
from ganeum.queue.devices import Machine, Slot
from ganeum.queue.entry import Entry
from ganeum.queue.needs import Held, Wish, held, wish
from ganeum.queue.placement import Never, Placed, Wait
from ganeum.queue.places import fit, places

LOOK = """
import json, sys
from ganeum.queue.devices import look
seen = look()
assert "torch" not in sys.modules
gpus = [[slot.name, slot.title, slot.free_gib, slot.held_gib] for slot in seen.of_kind("cuda")]
print(json.dumps([gpus, seen.trouble, seen.passing]))
"""
INFINITE = float("inf")


def look(driver: Path, **settings: str) -> tuple[list[list[Any]], str, bool]:
    """What a process of its own sees: UUID, title, GiB free and who holds how much of each GPU; the trouble, and
    whether that may pass."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    environment |= {"LD_LIBRARY_PATH": str(driver)} | settings
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    gpus, trouble, passing = json.loads(done.stdout)
    return gpus, trouble, passing


def names(driver: Path, **settings: str) -> list[str]:
    return [gpu[0] for gpu in look(driver, **settings)[0]]


def test_every_card_with_what_is_free_of_it_now(driver: Path) -> None:
    """Other programs' memory is off what is free, and the driver says which process has it."""
    seen, trouble, passing = look(driver, STUB_FREE="7,10", STUB_PID="4711")
    assert [["GPU-aaaa", "GPU 0", 7.0, {"4711": 3.0}], ["GPU-bbbb", "GPU 1", 10.0, {}]] == seen
    assert ("", False) == (trouble, passing)


def test_the_queue_gives_only_what_cuda_visible_devices_leaves_to_it(driver: Path) -> None:
    """In its order; an empty list leaves no card."""
    assert ["GPU-bbbb", "GPU-aaaa"] == names(driver, CUDA_VISIBLE_DEVICES="1,0")
    assert ["GPU-bbbb"] == names(driver, CUDA_VISIBLE_DEVICES="GPU-b")
    assert [] == names(driver, CUDA_VISIBLE_DEVICES="")


def test_a_card_that_a_cgroup_withholds_is_not_there_and_has_no_number(driver: Path) -> None:
    """NVML counts it and refuses to open it: a job of a cluster. CUDA's number 0 is then the next card."""
    seen, trouble, passing = look(driver, STUB_WITHHELD="0", CUDA_VISIBLE_DEVICES="0")
    assert ["GPU-bbbb"] == [gpu[0] for gpu in seen]
    assert ("", False) == (trouble, passing)


def test_parts_of_a_card_are_cards(driver: Path) -> None:
    """CUDA takes a part that MIG made, never the divided card; a card divided into nothing is said to be."""
    assert ["GPU-aaaa", "MIG-cccc", "MIG-dddd"] == names(driver, STUB_MIG="2")
    seen, trouble, passing = look(driver, STUB_MIG="0")
    assert ["GPU-aaaa"] == [gpu[0] for gpu in seen]
    assert "GPU 1 is in MIG mode and divided into no part that CUDA could take" == trouble
    assert not passing


def test_a_driver_that_does_not_answer_is_no_machine_without_gpus(driver: Path) -> None:
    """A run that asks for a GPU waits for the driver to come back: it may be an update."""
    seen, trouble, passing = look(driver, STUB_NO_DRIVER="1")
    assert [] == seen
    assert "NVIDIA's library is here, but its driver does not answer: `nvidia-smi` says why" == trouble
    expected = f"it asks for cuda, and there is the CPU (a CPU); {trouble}"
    assert Wait(expected) == fit(asks(3.0, "cuda"), Machine((CPU,), trouble=trouble, passing=passing), [])


def card(letter: str, memory_gib: float, free_gib: float | None = None) -> Slot:
    device = Device(f"card {letter}", "cuda", memory_gib, 0.0, capability=(8, 6))
    return Slot(f"GPU-{letter}", f"GPU {letter}", device, memory_gib if free_gib is None else free_gib)


CPU = Slot("cpu", "the CPU", Device("a CPU", "cpu", 32.0, 0.0), 20.0, cores=8)


def asks(gib: float | None, device: str = "auto", cores: int | None = None) -> Wish:
    """A run whose plan says so many GiB whatever is free."""
    return Wish(device, lambda _, free: None if gib is None else gib if gib <= free else INFINITE, cores)


def cards(*slots: Slot, per_gpu: int = 1) -> Machine:
    return Machine((*slots, CPU), auto="cuda", per_gpu=per_gpu)


def where(answer: object) -> str:
    assert isinstance(answer, Placed), answer
    return answer.device


def test_one_run_a_gpu_and_each_sees_its_own_alone() -> None:
    """The second goes to the second card, the third waits."""
    there = cards(card("a", 10), card("b", 10))
    first = fit(asks(3.0), there, [])
    assert Placed("GPU-a", {"CUDA_VISIBLE_DEVICES": "GPU-a"}, note="GPU a") == first
    assert "GPU-b" == where(fit(asks(3.0), there, [Held("GPU-a", 4.0)]))
    both = [Held("GPU-a", 4.0), Held("GPU-b", 4.0)]
    assert Wait("GPU a is taken; GPU b is taken") == fit(asks(3.0), there, both)


def test_the_smallest_card_that_fits_is_taken() -> None:
    """A larger one may be needed by the next."""
    there = cards(card("a", 24), card("b", 10))
    assert "GPU-b" == where(fit(asks(3.0), there, []))
    assert "GPU-a" == where(fit(asks(12.0), there, []))


def test_several_share_a_gpu_where_their_plans_fit_together() -> None:
    """10 GiB: a run of 3 GiB takes (3 + 0.6 of CUDA's context) · 1.05 = 3.78 GiB; so two fit, and a third does not."""
    there = cards(card("a", 10), per_gpu=3)
    begun = Held("GPU-a", 3.78, used_gib=0.0)
    assert "GPU-a" == where(fit(asks(3.0), there, [begun]))
    third = fit(asks(3.0), there, [begun, begun])
    assert Wait("GPU a has too little free: 2.4 of 10.0 GiB", keeps="GPU-a") == third


def test_what_a_run_has_taken_already_is_not_counted_twice() -> None:
    """It was promised 3.78 GiB and has 3.5: they are off what is free, and 0.28 are still to come."""
    there = cards(card("a", 10, free_gib=6.5), per_gpu=2)
    assert "GPU-a" == where(fit(asks(5.0), there, [Held("GPU-a", 3.78, used_gib=3.5)]))
    assert isinstance(fit(asks(5.0), there, [Held("GPU-a", 3.78, used_gib=None)]), Wait)


def test_other_programs_are_waited_for_and_a_card_too_small_is_not() -> None:
    """3 of 10 GiB are free: a run of 5 waits; one of 12 will never run here, and says so."""
    there = cards(card("a", 10, free_gib=3))
    assert Wait("GPU a has too little free: 3.0 of 10.0 GiB") == fit(asks(5.0), there, [])
    assert Never("by its plan it does not fit into GPU a, which has 10.0 GiB for it") == fit(asks(12.0), there, [])


def test_a_run_that_does_not_fit_into_a_card_that_is_as_good_as_empty_says_so() -> None:
    """8.5 GiB come to (8.5 + 0.6) · 1.05 = 9.6 of 10, and a desktop that stays has 0.6 of them."""
    expected = Never("by its plan it needs more than the 9.4 GiB that are free of GPU a at best")
    assert expected == fit(asks(8.5), cards(card("a", 10, free_gib=9.4)), [])
    assert isinstance(fit(asks(8.5), cards(card("a", 10, free_gib=8.9)), []), Wait)
    assert "GPU-a" == where(fit(asks(8.5), cards(card("a", 10)), []))


def test_a_run_of_unknown_need_gets_a_card_that_is_as_good_as_empty() -> None:
    """Nine tenths free, and no other run on it, before or after, even where they may share."""
    assert "GPU-a" == where(fit(asks(None), cards(card("a", 10, free_gib=9.5)), []))
    expected = Wait("what it needs is not known, and GPU a is not empty")
    assert expected == fit(asks(None), cards(card("a", 10, free_gib=7)), [])
    beside = fit(asks(None), cards(card("a", 10, free_gib=9), per_gpu=2), [Held("GPU-a", 1.0, 1.0)])
    assert replace(expected, keeps="GPU-a") == beside
    assert Wait("GPU a is taken") == fit(asks(1.0), cards(card("a", 10), per_gpu=2), [Held("GPU-a", None)])


def test_a_card_that_is_asked_for_by_number_is_the_only_one_its_run_sees() -> None:
    """cuda:1 is the first of the cards that such a run sees, so it is told to take that."""
    there = cards(card("a", 10), card("b", 10))
    placed = fit(asks(3.0, "cuda:1"), there, [])
    assert isinstance(placed, Placed)
    assert ("GPU-b", {"CUDA_VISIBLE_DEVICES": "GPU-b"}) == (placed.device, placed.environment)
    assert ("device=cuda",) == placed.arguments
    missing = fit(asks(3.0, "cuda:2"), there, [])
    assert Never("it asks for cuda:2, and there is GPU a (card a), GPU b (card b), the CPU (a CPU)") == missing


def test_runs_on_the_cpu_share_its_cores_and_see_no_gpu() -> None:
    """8 cores: 6 and 2, then the next waits; 9 are never there. Without a number a run takes all."""
    there = Machine((CPU,))
    placed = fit(asks(3.0, cores=6), there, [])
    assert Placed("cpu", {"CUDA_VISIBLE_DEVICES": ""}, note="the CPU") == placed
    assert "cpu" == where(fit(asks(3.0, cores=2), there, [Held("cpu", 4.0, 4.0, cores=6)]))
    expected = Wait("it asks for 3 of the 8 cores of the CPU, and 2 are free", keeps="cpu")
    assert expected == fit(asks(3.0, cores=3), there, [Held("cpu", 4.0, 4.0, cores=6)])
    assert Wait("the 8 cores of the CPU are taken") == fit(asks(3.0), there, [Held("cpu", 4.0, 4.0, cores=8)])
    assert Never("it asks for 9 cores, and there are 8") == fit(asks(3.0, cores=9), there, [])


def test_runs_on_the_cpu_share_its_memory() -> None:
    """20 GiB free, of which a run is still to take 10: one of 12 waits."""
    there = Machine((CPU,))
    begun = Held("cpu", 10.5, used_gib=0.5, cores=1)
    expected = Wait("the CPU has too little free: 10.0 of 32.0 GiB", keeps="cpu")
    assert expected == fit(asks(12.0, cores=1), there, [begun])
    assert "cpu" == where(fit(asks(9.0, cores=1), there, [begun]))


def test_what_an_earlier_run_waits_for_because_of_ours_is_kept_for_it() -> None:
    """The larger card for the one that fits nowhere else; a later one may take the other, and not that."""
    there = cards(card("a", 24, free_gib=14), card("b", 10), per_gpu=2)
    ours = [Held("GPU-a", 10.0, 10.0)]
    large = fit(asks(18.0), there, ours)
    assert isinstance(large, Wait)
    assert "GPU-a" == large.keeps
    kept = [*ours, Held("GPU-a", None, kept_for="large")]
    assert "GPU-b" == where(fit(asks(3.0), there, kept))
    assert Wait("GPU a is kept for large, which comes first") == fit(asks(11.0), there, kept)


def test_what_is_taken_by_other_programs_is_kept_for_nobody() -> None:
    """Nobody knows when they end: whoever fits may go."""
    there = cards(card("a", 24, free_gib=14), per_gpu=2)
    large = fit(asks(18.0), there, [])
    assert isinstance(large, Wait)
    assert large.keeps is None
    beside_ours = fit(asks(18.0), there, [Held("GPU-a", 1.0, 1.0)])
    assert isinstance(beside_ours, Wait)
    assert beside_ours.keeps is None


def test_of_several_that_an_earlier_run_waits_for_one_is_kept() -> None:
    """That with the most room beside its runs, by what they were given: it does not change while memory wavers."""
    there = cards(card("a", 10, free_gib=4), card("b", 10, free_gib=4), per_gpu=3)
    ours = [Held("GPU-a", 6.0, 6.0), Held("GPU-b", 2.0, 2.0), Held("GPU-b", 3.0, None)]
    large = fit(asks(7.0), there, ours)
    assert isinstance(large, Wait)
    assert "GPU-b" == large.keeps


def test_a_run_keeps_the_cores_that_its_own_queue_gave_it(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queues may go by different numbers: what counts is what the process was started with."""
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "OMP_NUM_THREADS": "3"}) as process:
        entry = queued(results, "one", "device: cpu", state="running", device="cpu", pid=process.pid)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        found = held(entry, Machine((CPU,)))
        process.kill()
    assert 3 == found.cores


def test_plans_are_made_for_a_while_and_the_rest_is_asked_about_later(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand plans in one go would keep a queue from its runs for a minute."""
    monkeypatch.setattr(places_, "PLANNING_S", -1.0)
    there = places(cards(card("a", 10)))
    assert Wait("those before it are looked at first") == there(queued(results, "one"), [])


def test_a_need_is_what_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2 124M with AdamW in fp32 holds 16 bytes a parameter, 1.85 GiB, before activations: more than 1 GiB, less
    than a card of 10 GiB has; with one sequence at once it is the same wherever it goes."""
    Path(tmp_path / "gpt2.yaml").write_text(
        "model: {n_layer: 12, n_head: 12, n_embd: 768, block_size: 256, vocab_size: 50257}\n"
        "train: {batch_size: 1, micro_batch_size: 1, max_iters: 10, precision: fp32, compile: false}\n"
    )
    wished = wish("auto", lambda: load(tmp_path / "gpt2.yaml"), {"OMP_NUM_THREADS": "3"})
    large, small = card("a", 10), card("b", 1)
    need = wished.need(large.device, 9.0)
    assert need is not None
    assert 1.85 < need < 4.0
    assert need == wished.need(large.device, 5.0)
    assert INFINITE == wished.need(small.device, 1.0)
    assert 3 == wished.cores


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path / "results"


def queued(results: Path, name: str, *lines: str, **facts: Any) -> Entry:
    """An entry, with its config frozen as the queue does it."""
    yaml = results.parent / "tiny.yaml"
    tiny = "model: {n_layer: 1, n_head: 2, n_embd: 16, block_size: 16, vocab_size: 64}\ntrain: {max_iters: 4}\n"
    yaml.write_text(tiny + "".join(line + "\n" for line in lines))
    frozen = results / name / "queued" / "config.yaml"
    frozen.parent.mkdir(parents=True)
    frozen.write_text(to_yaml(load(yaml, [f"name={name}"])))
    return Entry(name, id=len(list(results.iterdir())), cwd=str(results.parent), token=name, **facts)


def test_a_run_that_was_started_holds_what_its_own_plan_says_less_what_it_has(results: Path) -> None:
    """(3 GiB planned at most + 0.6 of CUDA's context) · 1.05, of which this process has 1 GiB already."""
    entry = queued(results, "one", state="running", device="GPU-a", pid=os.getpid())
    (results / "one" / "plan.json").write_text(json.dumps({"memory_gib": {"high": 3.0}}))
    slot = Slot("GPU-a", "GPU a", Device("card", "cuda", 10.0, 0.0, capability=(8, 6)), 9.0, {os.getpid(): 1.0})
    found = held(entry, Machine((slot, CPU), auto="cuda"))
    assert ("GPU-a", pytest.approx(3.78), 1.0) == (found.device, found.gib, found.used_gib)


def test_a_run_that_has_just_been_claimed_has_taken_nothing(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process id is still that of the queue that claimed it."""
    monkeypatch.setattr(needs, "_environment", lambda pid: {})
    entry = queued(results, "one", state="starting", device="cpu", pid=os.getpid())
    found = held(entry, Machine((CPU,)))
    assert (0.0, 8) == (found.used_gib, found.cores)
    assert found.gib is not None
    assert found.gib > 0.5


def test_entries_that_wait_for_a_taken_device_are_not_even_read(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of them are asked about every few seconds."""
    monkeypatch.setattr(needs, "_environment", lambda pid: {})
    runs = [queued(results, "one", "device: cpu", state="running", device="cpu", pid=os.getpid())]
    waiting = [queued(results, f"two{n}", "device: cpu") for n in range(3)]
    read: list[Path] = []
    monkeypatch.setattr(needs, "load_stored", lambda path: read.append(path))
    where_ = places(Machine((CPU,)))
    (results / "one" / "plan.json").write_text(json.dumps({"memory_gib": {"high": 3.0}}))
    assert [Wait("the 8 cores of the CPU are taken")] * 3 == [where_(entry, runs) for entry in waiting]
    assert [] == read


def test_an_entry_goes_where_its_frozen_config_says(results: Path) -> None:
    """`device: cpu` on a machine with a GPU, and `device: cuda:1` on one with a single card."""
    there = places(cards(card("a", 10)))
    assert "cpu" == where(there(queued(results, "one", "device: cpu"), []))
    assert "GPU-a" == where(there(queued(results, "two", "device: auto"), []))
    never = there(queued(results, "three", "device: cuda:1"), [])
    assert Never("it asks for cuda:1, and there is GPU a (card a), the CPU (a CPU)") == never


def test_a_damaged_frozen_config_is_for_the_start_to_tell(results: Path) -> None:
    """Where a run goes is asked of the whole list: one bad file must not stop that."""
    entry = queued(results, "one")
    (results / "one" / "queued" / "config.yaml").write_text("device: cpu\ntrain: [")
    assert "cpu" == where(places(Machine((CPU,)))(entry, []))
    (results / "one" / "queued" / "config.yaml").unlink()
    assert "cpu" == where(places(Machine((CPU,)))(entry, []))
