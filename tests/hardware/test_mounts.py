"""Which directories lie on a file system that other machines may share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.hardware import mounts

TABLE = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/me/local xfs rw 0 0
host:/data /mnt/my\\040data fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/srv/results", None),
        ("/home/me/results", "nfs4"),
        ("/homes/me/results", None),
        ("/home", "nfs4"),
        ("/home/me/local/results", None),
        ("/mnt/my data/results", "fuse.sshfs"),
    ],
)
def test_the_innermost_mount_counts(
    directory: str, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory is on what is mounted nearest above it; a blank in a name is written in octal."""
    table = tmp_path / "mounts"
    table.write_text(TABLE)
    monkeypatch.setattr(mounts, "MOUNTS", table)
    assert kind == mounts.shared_kind(Path(directory))


def test_a_system_that_does_not_tell_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc nothing is known, and nothing is claimed."""
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert mounts.shared_kind(tmp_path) is None
