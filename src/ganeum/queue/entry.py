"""One entry of the queue: which run is wanted, when and where it may start, and how far it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

State = Literal["queued", "paused", "starting", "running", "finished", "failed", "interrupted", "killed", "held"]
STATES: tuple[State, ...] = get_args(State)
GOING: tuple[State, ...] = ("starting", "running")  # a process has it, or is about to
ENDED: tuple[State, ...] = ("finished", "failed", "killed")  # nothing happens any more unless somebody asks
TOLD: tuple[State, ...] = (*ENDED, "held", "interrupted")  # people are told when it comes to this
OPEN: tuple[State, ...] = tuple(state for state in STATES if state not in ENDED)


@dataclass(frozen=True)
class Entry:
    """An entry as the store has it. Times are seconds since 1970; what is not known (yet) is None.

    Attributes:
        id: given out by the store once and never again; 0 before that.
        name: of the run, and so of its directory.
        state: `queued` (its turn has not come), `starting` (claimed, its process has not answered), `running`,
            `finished`, `failed`, `killed` (as asked), `paused` (as asked, with a checkpoint where it ran),
            `interrupted` (by something else, and not to be resumed by itself), `held` (something is in the way that
            `note` says).
        priority: the higher the earlier; among equals the lower `order`, then the lower `id`.
        group: a name that commands can take several entries by. after: the ids that must have finished before it.
        at: not before this time. not_before: the same, of the queue's own making, after a start that failed.
        config, overrides, section: what the user queued; what is trained is the frozen config beside the run.
        cwd: where the user stood: paths in a config begin there. commit, code_sha: of the code then, and of its
            files. strict: held where the code is another when its turn comes.
        attempts: processes started for it. retries: those after something went wrong. micro_batch_size: what the
            queue has lowered it to after memory had killed the process. step: of the last checkpoint when the last
            attempt ended. done_before: that at which the run had finished when it was queued, for a larger length.
        max_hours: of all attempts together. hours: what the earlier ones took. max_retries: None for the usual.
        device: where it runs or ran. pid, started, boot_id, host: the process that has it, `started` in ticks since
            the boot. token: of this attempt, fresh with each. wanted: `pause`, `kill`, `interrupt` or `hours` where
            that was asked of it.
        untold: since when people are to be told how it ended; None where they have been, or need not.
        sweep, trial: the sweep it belongs to, and the keys that are its own in it. spec: how that sweep goes on, as
            study.Spec has it; None where all of its trials were queued at once and none is hopeless.
        note: one line for the listing. error_tail: the error, or the end of the log.
    """

    name: str
    id: int = 0
    state: State = "queued"
    priority: int = 0
    order: float = 0.0
    group: str = ""
    after: tuple[int, ...] = ()
    at: float | None = None
    not_before: float | None = None
    config: str = ""
    overrides: tuple[str, ...] = ()
    section: str | None = None
    cwd: str = ""
    commit: str | None = None
    code_sha: str | None = None
    strict: bool = False
    attempts: int = 0
    retries: int = 0
    micro_batch_size: int | None = None
    step: int = 0
    done_before: int = 0
    max_hours: float | None = None
    hours: float = 0.0
    max_retries: int | None = None
    device: str | None = None
    pid: int | None = None
    started: float | None = None
    boot_id: str | None = None
    host: str | None = None
    token: str | None = None
    wanted: str = ""
    sweep: str | None = None
    trial: Mapping[str, str] | None = None
    spec: Mapping[str, Any] | None = None
    created: float | None = None
    queued: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_status: int | None = None
    note: str = ""
    error_tail: str = ""
    untold: float | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Entry:
        """What `plain` gave, of this version or another: what is unknown here is left out.

        Raises:
            TypeError, ValueError: it is no entry.
        """
        known = {field.name: plain[field.name] for field in fields(cls) if field.name in plain}
        known |= {name: tuple(known[name]) for name in ("after", "overrides") if name in known}
        if known.get("state", "queued") not in STATES:
            raise ValueError(f"no state of an entry: {known['state']}")
        return cls(**known)
