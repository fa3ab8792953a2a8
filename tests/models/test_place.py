"""What a user points at, where names and pointers are not as training left them."""

import pytest
from made_run import run_with_checkpoint

from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models.place import locate


@pytest.fixture
def run(tmp_path):
    run_with_checkpoint(tmp_path / "a", Model(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=6))
    return tmp_path / "a"


def test_a_pointer_of_other_bytes(run):
    """A damaged `best` is as none: the latest is taken."""
    (run / "checkpoints/best").write_bytes(b"\xff\xfe\x00")
    assert locate(run).step == 20


def test_a_copy_beside_the_checkpoints(run):
    """A directory called step-00000020-backup is no checkpoint, and not named as one."""
    (run / "checkpoints/step-00000020-backup").mkdir()
    assert locate(run, "latest").step == 20
    with pytest.raises(CheckpointError) as error:
        locate(run, "30")
    assert error.value.suggestion == "best, latest, or one of the steps 10, 20"


def test_a_checkpoint_by_its_directorys_name(run):
    """step-00000010 is step 10."""
    assert locate(run, "step-00000010").step == 10
