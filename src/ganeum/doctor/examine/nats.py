"""What each target costs in nats, without all rows in fp32 at once."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 512  # rows of logits that are looked at together


@torch.no_grad()
def nats_of(rows: Tensor, targets: Tensor, is_log: bool) -> Tensor:
    """(N,) −ln p of the targets, some rows at a time."""
    found = []
    for at in range(0, len(rows), AT_ONCE):
        part = rows[at : at + AT_ONCE].float()
        logs = part if is_log else torch.log_softmax(part, -1)
        found.append(-logs.gather(1, targets[at : at + AT_ONCE, None])[:, 0])
    return torch.cat(found) if found else rows.new_zeros(0, dtype=torch.float32)
