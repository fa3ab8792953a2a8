"""Why the queue's list cannot be read or written: locked, full, damaged; as a user can act on it."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from ganeum.errors import QueueError

IO_ERROR = "disk I/O error"  # what SQLite says where a full disk leaves it no shared memory, or a file server is away
HELD = ("locked", "busy", "locking protocol")  # the last where a process was stopped while it opened the list
SAID = ("malformed", "not a database", "no such table", "no such column", "file is encrypted")  # of a damaged list
NOT_OURS = ("readonly database", "unable to open database file")  # of one that this user may not write


def explained(error: sqlite3.Error | OSError, path: Path) -> QueueError:
    """An error of SQLite or of the disk; its `kind` tells whether waiting may mend it."""
    kind, where = _kind(error), str(path)
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if kind == "locked":
        suggestion = f"the same command again; `fuser {where}` names the process"
        told = QueueError("the queue is locked by another process", where=where, why=why, suggestion=suggestion)
    elif kind == "full" and IO_ERROR in why:
        told = QueueError("the queue's disk is full, or fails", where=where, why=why, suggestion="look at the disk")
    elif kind == "full":
        told = QueueError("the queue cannot be written: the disk is full", where=where, suggestion="make room on it")
    elif kind == "damaged":
        suggestion = "`ganeum queue rebuild` puts it aside and makes it again from what stands beside the runs"
        told = QueueError("the list of the queue is damaged", where=where, why=why, suggestion=suggestion)
    elif isinstance(error, PermissionError) or any(said in why for said in NOT_OURS):
        suggestion = f"`ls -la {path.parent}` says whose it is; GANEUM_RESULTS names another directory"
        told = QueueError("the queue cannot be written by this user", where=where, why=why, suggestion=suggestion)
    else:
        told = QueueError("the queue cannot be read or written", where=where, why=why)
    told.kind = kind
    return told


def _kind(error: sqlite3.Error | OSError) -> str:
    text = str(error)
    if any(one in text for one in HELD):
        return "locked"
    if "is full" in text or IO_ERROR in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    if type(error) is sqlite3.DatabaseError or (isinstance(error, sqlite3.Error) and any(one in text for one in SAID)):
        return "damaged"
    return "other"
