"""A run that needs much starts in the end, however many small ones keep coming behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ganeum.config import load
from ganeum.config.write import to_yaml
from ganeum.hardware.device import Device
from ganeum.queue import needs
from ganeum.queue.devices import Machine, Slot
from ganeum.queue.entry import GOING, Entry
from ganeum.queue.needs import Held, Wish
from ganeum.queue.placement import Placement, Wait
from ganeum.queue.places import fit, places
from ganeum.queue.schedule import schedule

INFINITE = float("inf")


@dataclass
class Night:
    """A card of 10 GiB for three runs at most, and cores; every run lasts three rounds, and each round another small
    one comes to the end of the list."""

    sizes: dict[str, tuple[float, int]]  # GiB and cores by what a name begins with
    device: str
    foreign_gib: float = 0.0
    entries: list[Entry] = field(default_factory=list)
    left: dict[int, int] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    round: int = 0

    def size(self, entry: Entry) -> tuple[float, int]:
        return self.sizes[entry.name.rstrip("0123456789")]

    def place(self, entry: Entry, going: Sequence[Entry]) -> Placement:
        """What `places` does, without files."""
        gpu = Device("card", "cuda", 10.0, 0.0, capability=(8, 6))
        held = []
        for one in going:
            gib, cores = self.size(one)
            known = one.state in GOING
            held.append(Held(one.device or "", gib if known else None, gib, cores, "" if known else one.name))
        used = self.foreign_gib + sum(self.size(one)[0] for one in going if one.state in GOING)
        slots = (
            Slot("GPU-a", "GPU a", gpu, 10.0 - used),
            Slot("cpu", "the CPU", Device("a CPU", "cpu", 64, 0), 50, cores=4),
        )
        gib, cores = self.size(entry)
        wish = Wish(self.device, lambda _, free: gib if gib <= free else INFINITE, cores)
        return fit(wish, Machine(slots, auto="cuda", per_gpu=3), held)

    def go(self, rounds: int) -> None:
        for round in range(self.round, self.round + rounds):
            self.entries.append(Entry(f"small{round}", id=100 + round))
            self.left = {id: left - 1 for id, left in self.left.items() if left > 1}
            self.entries = [one for one in self.entries if one.state == "queued" or one.id in self.left]
            decisions = schedule(self.entries, now=0.0, place=self.place, token=lambda: "t")
            for started, _ in decisions.start:
                place = next(i for i, one in enumerate(self.entries) if one.id == started.id)
                self.entries[place] = replace(started, state="running")
                self.left[started.id], self.began[started.name] = 3, round
        self.round += rounds


@pytest.mark.parametrize(("device", "large"), [("cuda", (7.0, 1)), ("cpu", (1.0, 4))])
def test_a_large_run_starts_once_those_before_it_have_ended(device: str, large: tuple[float, int]) -> None:
    """Memory of a card, cores of the CPU: within the three rounds that the running ones last. Then the small ones go
    on."""
    night = Night({"small": (2.0, 1), "large": large}, device)
    night.go(6)
    night.entries.append(Entry("large", id=50))
    night.entries.sort(key=lambda one: one.id)
    night.go(12)
    assert night.began["large"] <= 6 + 3
    assert max(night.began.values()) > 12


def test_what_other_programs_have_holds_nobody_up() -> None:
    """With 4 of 10 GiB in other hands nobody knows when the large one can start: the small ones do, two at a time."""
    night = Night({"small": (2.0, 1), "large": (7.0, 1)}, "cuda", foreign_gib=4.0)
    night.entries.append(Entry("large", id=50))
    night.go(12)
    assert "large" not in night.began
    assert 8 == len(night.began)


def test_a_kept_card_is_read_from_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`places` takes an entry that is queued with a device for one that it is kept for."""
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(needs, "_environment", lambda pid: {})
    yaml = tmp_path / "tiny.yaml"
    yaml.write_text("model: {n_layer: 1, n_head: 2, n_embd: 16, block_size: 16}\ntrain: {max_iters: 4}\ndevice: cpu\n")
    for name in ("first", "second"):
        frozen = tmp_path / "results" / name / "queued" / "config.yaml"
        frozen.parent.mkdir(parents=True)
        frozen.write_text(to_yaml(load(yaml, [f"name={name}"])))
    there = Machine((Slot("cpu", "the CPU", Device("a CPU", "cpu", 64.0, 0.0), 50.0, cores=4),))
    kept = Entry("first", id=1, device="cpu")
    assert Wait("the CPU is kept for first, which comes first") == places(there)(Entry("second", id=2), [kept])
