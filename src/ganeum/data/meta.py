"""``meta.json``: what ``prepare`` says about the tokens beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ganeum.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

META = "meta.json"
PRODUCTS = ("train.bin", "val.bin", "tokenizer", META)  # in the order in which they take their places
HELD_OUT_NAMES = 10_000  # files listed; where there are more, none


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Part(_Frozen):
    """One ``.bin`` file."""

    tokens: int = Field(ge=0, description="ids in the file, end-of-text tokens among them")
    bytes: int = Field(ge=0, description="UTF-8 bytes of the text they stand for; end-of-text tokens stand for none")
    documents: int = Field(ge=0, description="each ends with an end-of-text token")
    sha256: str = Field(description="of the file")


class Source(_Frozen):
    """One thing named to ``prepare``."""

    path: str = Field(description="a file or a directory")
    part: Literal["split", "train", "val"] = Field(description="split: divided by `split`; else wholly in that part")
    files: int = Field(description="text files read")
    bytes: int = Field(description="their size")


class Split(_Frozen):
    """How documents came into ``val.bin``."""

    rule: Literal["hash", "given", "none"] = Field(
        description="hash: a document whose hash of (seed, file name, number in the file) lies below val_share is held "
        "out; given: by --val or by the source; none: there is one document only"
    )
    val_share: float = Field(description="share of the documents held out (rule: hash)")
    seed: int = Field(description="changes which documents are held out, and the sample that BPE is trained on")
    separator: str | None = Field(description="what stands between documents in a file; null: a file is a document")
    held_out: list[str] | None = Field(
        description="the files in val.bin, as paths below their source, or absolute where an earlier source has one of "
        "the same name; null: documents are not files, a name is not UTF-8, or over 10,000"
    )


class Meta(_Frozen):
    """The whole file."""

    ganeum_version: str = Field(description="that wrote it")
    tokenizer: Literal["bpe", "gpt2", "bytes", "characters", "huggingface", "sentencepiece"] = Field(
        description="the kind; it lies in tokenizer/"
    )
    vocab_size: int = Field(gt=0, description="every id is below it")
    dtype: Literal["uint16", "uint32"] = Field(description="of the .bin files, in this machine's (little-endian) order")
    train: Part = Field(description="train.bin")
    val: Part | None = Field(description="val.bin; null: there is none")
    split: Split = Field(description="how documents were divided")
    sources: list[Source] = Field(description="where the text came from")
    replaced_bytes: int = Field(description="bytes that were not UTF-8, replaced by U+FFFD")
    skipped_files: int = Field(description="files left out because they are not text")
    rows: int = Field(0, ge=0, description="rows read of JSON lines, tables and the like; each with text is a document")
    rows_without_text: int = Field(0, ge=0, description="of them left out because their text is empty or null")
    bad_rows: int = Field(0, ge=0, description="of them left out because they are broken (--skip-bad-rows)")
    fingerprint: str = Field(
        description="of the files' names, sizes and times, and of the options; equal: nothing to do"
    )

    @property
    def numpy_dtype(self) -> npt.DTypeLike:
        """The dtype of the ``.bin`` files."""
        import numpy as np

        return np.dtype(self.dtype).newbyteorder("<")

    @classmethod
    def read(cls, directory: Path) -> Meta | None:
        """The one in ``directory``; None where there is none.

        Raises:
            DataError: it is damaged.
        """
        path = directory / META
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(
                f"{directory} cannot be read",
                where=str(path),
                why=error.strerror,
                suggestion="a directory that prepared data lies in, or may lie in",
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(key) for key in first["loc"])
            raise DataError(
                f"{META} is damaged",
                where=str(path),
                why=f"{place}: {first['msg']}" if place else first["msg"],
                suggestion="prepare the data again: ganeum prepare … --overwrite",
            ) from error


def held_out_files(meta: Meta) -> list[Path]:
    """The files whose text is ``val.bin``, in its order, for whoever wants to compress exactly them.

    Raises:
        DataError: ``meta`` does not list them.
    """
    if meta.split.held_out is None:
        raise DataError(
            "the held-out files are not known",
            where=META,
            why="it lists them only where every document is a file, every name is UTF-8, and up to "
            f"{HELD_OUT_NAMES:,} of them",
        )
    roots = [Path(source.path) for source in meta.sources if source.part != "train"]
    paths = [
        [root / name if root.is_dir() or Path(name).is_absolute() else root for root in roots]
        for name in meta.split.held_out
    ]
    return [
        next((path for path in among if path.is_file() and path.name == name.rpartition("/")[2]), among[0])
        for name, among in zip(meta.split.held_out, paths, strict=True)
    ]
