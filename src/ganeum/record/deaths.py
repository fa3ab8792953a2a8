"""Why a run's process is gone without a word, where the system has counted it; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

from ganeum.hardware import limits
from ganeum.record.status import Status

TRY = (
    "try: close other programs; or make the run need less: on a CPU `ganeum plan` lists what does, on a GPU "
    "train.optimizer_offload=false leaves the optimizer's state there"
)


def explained(status: Status | None) -> str | None:
    """Why the run has died; None where it has not, or where nothing shows why.

    A kill for want of memory leaves nothing in the process, but the kernel counts them: more of them now than when the
    status was written is evidence, for a cgroup of its own strong, for the whole machine weaker.
    """
    if status is None or status.state != "running" or status.is_alive():
        return None
    if status.oom_counter is None or status.oom_kills is None or not status.same_boot():
        return None
    counter = Path(status.oom_counter)
    kills = (limits.oom_kills(counter) or 0) - status.oom_kills
    if kills <= 0:
        return None
    whose = "on this machine" if counter == limits.PROC / "vmstat" else "in its cgroup"
    return (
        f"it was probably killed for want of the machine's memory\nat its last note it held {status.held_gib or 0:.1f} "
        f"of {status.memory_gib or 0:.1f} GiB, and since then the kernel has killed {kills} "
        f"process{'es' if kills > 1 else ''} {whose} for that ({counter})\n{TRY}"
    )
