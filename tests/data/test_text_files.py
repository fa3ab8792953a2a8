"""Which files are read."""

import os
from pathlib import Path

import pytest

from ganeum.data.files import Source, Walk
from ganeum.data.prepare import Preparation, prepare
from ganeum.errors import DataError


def names(*sources: Source, excluded: set[Path] = frozenset()) -> list[str]:  # type: ignore[assignment]
    return [file.name for file in Walk(sources, excluded)]


def write(directory: Path, *names: str, content: bytes = b"text") -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_directories_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Recursively, sorted, each file once, named by its path below the source whatever the machine."""
    write(tmp_path, "b.txt", "a/z.txt", "a/y/x.txt", "c.md", "B.txt")
    assert ["B.txt", "a/y/x.txt", "a/z.txt", "b.txt", "c.md"] == names(Source(tmp_path))


def test_hidden_files_are_passed_over_unless_named(tmp_path: Path) -> None:
    """.git and its like are no corpus; a file that the user names is."""
    write(tmp_path, ".git/config", ".hidden.txt", "seen.txt")
    assert ["seen.txt"] == names(Source(tmp_path))
    assert [".hidden.txt"] == names(Source(tmp_path / ".hidden.txt"))


def test_binary_files_are_left_out_named_and_counted(tmp_path: Path) -> None:
    """A zero byte among the first 8 KiB makes a file binary; at most five of them are named."""
    write(tmp_path, "a.txt", content=b"x" * 8192 + b"\0")
    write(tmp_path, *(f"{i}.bin" for i in range(7)), content=b"\x89PNG\0")
    survey = Walk([Source(tmp_path)]).survey()
    assert ["a.txt"] == names(Source(tmp_path))
    assert (1, 8193, 7) == (survey.files, survey.bytes, survey.skipped)
    assert [str(tmp_path / f"{i}.bin") for i in range(5)] == survey.skipped_names


def test_loops_of_links_end(tmp_path: Path) -> None:
    """A link to a directory above or beside is entered once; a link that leads nowhere is passed over."""
    write(tmp_path, "a/one.txt", "b/two.txt")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "side").symlink_to(tmp_path / "a")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert ["a/one.txt", "b/two.txt"] == names(Source(tmp_path))


def test_patterns_choose_names_or_paths(tmp_path: Path) -> None:
    """A pattern is for the file's name; with a slash in it, for the path below the source."""
    write(tmp_path, "a.py", "b.txt", "lib/c.py", "lib/d.md")
    assert ["a.py", "lib/c.py"] == names(Source(tmp_path, patterns=("*.py",)))
    assert ["lib/c.py", "lib/d.md"] == names(Source(tmp_path, patterns=("lib/*",)))
    assert ["a.py", "b.txt", "lib/c.py"] == names(Source(tmp_path, patterns=("*.py", "*.txt")))


def test_what_prepare_writes_is_not_read(tmp_path: Path) -> None:
    """A directory prepared into itself does not swallow its own tokenizer."""
    write(tmp_path, "a.txt", "meta.json", "tokenizer/tokenizer.json")
    assert ["a.txt"] == names(Source(tmp_path), excluded={tmp_path / "meta.json", tmp_path / "tokenizer"})


def test_the_fingerprint_changes_with_a_name_a_size_or_a_time(tmp_path: Path) -> None:
    """Equal files give equal fingerprints; another size, time or name another one."""
    write(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", (1, 1))
    prints = [Walk([Source(tmp_path)]).survey().fingerprint]
    prints.append(Walk([Source(tmp_path)]).survey().fingerprint)
    write(tmp_path, "a.txt", content=b"more text")
    os.utime(tmp_path / "a.txt", (1, 1))
    prints.append(Walk([Source(tmp_path)]).survey().fingerprint)
    os.utime(tmp_path / "a.txt", (2, 2))
    prints.append(Walk([Source(tmp_path)]).survey().fingerprint)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    prints.append(Walk([Source(tmp_path)]).survey().fingerprint)
    assert prints[0] == prints[1]
    assert 4 == len(set(prints))


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    """What does not exist is an error, not an empty corpus."""
    with pytest.raises(DataError) as error:
        names(Source(tmp_path / "book.txt"))
    assert str(error.value) == (
        f"DataError: {tmp_path}/book.txt does not exist\n"
        f"  where  {tmp_path}/book.txt\n"
        "  try    name text files, directories of them, tinystories or pystdlib"
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A file without permission is an error, not left out in silence."""
    write(tmp_path, "a.txt")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(DataError, match=r"a\.txt cannot be read"):
        names(Source(tmp_path))


def test_a_name_too_long_is_named(tmp_path: Path) -> None:
    """What the file system refuses is an error with its reason."""
    with pytest.raises(DataError, match=r"cannot be read[\s\S]*too long"):
        names(Source(tmp_path / ("x" * 300)))


def test_prepared_directories_are_no_text(tmp_path: Path) -> None:
    """What `prepare` wrote is passed over, and its directory named once; another program's meta.json is a file."""
    write(tmp_path, "a.txt", "other/meta.json")
    prepare(Preparation((Source(tmp_path / "a.txt"),), tmp_path / "old", tokenizer="bytes"))
    write(tmp_path, "old/mine.txt")
    walk = Walk([Source(tmp_path)])
    assert ["a.txt", "old/mine.txt", "other/meta.json"] == [file.name for file in walk]
    assert [str(tmp_path / "old")] == walk.survey().prepared


def test_utf16_is_called_by_its_name(tmp_path: Path) -> None:
    """What Windows' editor saves as "Unicode" is left out with the way to read it."""
    write(tmp_path, "a.txt", content="one".encode("utf-16"))
    assert [f"{tmp_path}/a.txt (UTF-16: iconv -f utf-16 -t utf-8)"] == Walk([Source(tmp_path)]).survey().skipped_names
