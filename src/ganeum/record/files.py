"""Files that are either the old or the new one, whatever moment the process dies at."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes | str, *, flush: bool = True) -> None:
    """Put `content` at `path`: written beside it, flushed to the disk, renamed over it; text as UTF-8.

    Whoever reads sees the old content or the new, never a part; after it returns, a power cut does not undo it. Not so
    without `flush`, which is for what can be made again.

    Raises:
        OSError: a full disk, say; the old content still stands, and nothing is left beside it.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_UMASK)  # mkstemp's files are private; a record is not
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if flush:
        flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut (POSIX; Windows does not need and cannot do it)."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such call
            raise
    finally:
        os.close(handle)


def write_json(path: Path, content: object, *, flush: bool = True) -> None:
    """Like `write_atomic`, as indented JSON; NaN and infinities, which JSON lacks, become null."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Half a surrogate pair becomes JSON's own escape.
    write_atomic(path, text.encode("utf-8", "backslashreplace"), flush=flush)


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        FileNotFoundError, json.JSONDecodeError: it is not there, or no JSON.
    """
    return json.loads(path.read_bytes())


def finite(content: Any) -> Any:
    """`content` with null for every NaN and infinity in it."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    return [finite(value) for value in content] if isinstance(content, (list, tuple)) else content


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _umask()  # asked once, at import: asking means setting it for a moment, for all threads
