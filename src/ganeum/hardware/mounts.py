"""What kind of file system a directory lies on: one that other machines may share works differently."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
# As Linux names them. FUSE's other file systems (ntfs-3g, a container's overlay) are this machine's own.
SHARED = (
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "virtiofs", "lustre", "ceph", "gpfs", "beegfs", "glusterfs",
    "afs", "ocfs2", "gfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.juicefs",
    "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.grpcfuse", "fuse.osxfs", "fuse.moosefs", "fuse.mfs",
    "fuse.beegfs", "wekafs",
)  # fmt: skip


def shared_kind(directory: Path) -> str | None:
    """The kind of the network's file system that a directory lies on, or will once it is made (`nfs4`); None where it
    is on this machine's own, and where the system does not tell (elsewhere than on Linux)."""
    there = os.path.realpath(directory)
    best, found = -1, None
    for point, kind in _mounts():
        if len(point) >= best and (there + "/").startswith(point.rstrip("/") + "/"):  # the later lies on the earlier
            best, found = len(point), kind
    return found if found in SHARED else None


def _mounts() -> list[tuple[str, str]]:
    try:
        lines = [line.split(" ") for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
    except OSError:
        return []
    return [(_unescaped(line[1]), line[2]) for line in lines if len(line) > 2]


def _unescaped(text: str) -> str:
    """Blanks stand there as `\\040`, in octal."""
    for octal in ("040", "011", "012", "134"):
        text = text.replace(f"\\{octal}", chr(int(octal, 8)))
    return text
