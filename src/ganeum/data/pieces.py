"""SentencePiece models: unigram and BPE, with or without byte fallback."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ganeum.data.huggingface import no_such_token
from ganeum.data.tokenizer import Ids, Tokenizer
from ganeum.errors import DataError, MissingExtra

SPACE = "\u2581"  # what stands for a space in a piece
MODEL = "tokenizer.model"


class SentencePiece(Tokenizer):
    """The ids that ``sentencepiece`` gives, without tokens added around a text.

    Most models set a space in front of every text and normalise it; decoding shows the text as the model sees it. What
    no piece can say is the unknown token, which stands for no bytes (a model with byte fallback has none of it).

    Args:
        model: the content of the file.
        end_of_text: the piece that ends a document; None: the model's own; empty: none does.

    Raises:
        MissingExtra: the package is not installed.
        ValueError: it is no model.
        DataError: there is no such piece, or the model has no end of its own.
    """

    kind = "sentencepiece"
    cuts = False

    def __init__(self, model: bytes, end_of_text: str | None = None) -> None:
        if find_spec("sentencepiece") is None:
            raise MissingExtra(
                "a SentencePiece model needs the package sentencepiece, which is not installed",
                suggestion='pip install "ganeum[sentencepiece]"',
            )
        import sentencepiece

        try:
            if not model:  # the library takes it, and complains on standard error later
                raise RuntimeError("empty")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("it is no SentencePiece model, or not all of one") from error
        self._model, processor = model, self._processor
        ids = range(processor.get_piece_size())
        controls = [processor.id_to_piece(id) for id in ids if processor.is_control(id)]
        if end_of_text is None:
            if processor.eos_id() < 0:
                raise DataError(
                    "the SentencePiece model has no token that ends a text",
                    why="it was trained with eos_id=-1",
                    suggestion=f"--end-of-text TOKEN; its control tokens are {', '.join(controls) or 'none'}\n"
                    "(--end-of-text '' where nothing is to stand between documents)",
                )
            end_of_text = str(processor.id_to_piece(processor.eos_id()))
        end = processor.piece_to_id(end_of_text) if end_of_text else None
        if end is not None and processor.id_to_piece(end) != end_of_text:
            raise no_such_token(end_of_text, controls)
        token_bytes = [b"" if id == end else self._bytes(id) for id in ids]
        super().__init__(token_bytes, end, end_of_text)

    def _bytes(self, id: int) -> bytes:
        processor = self._processor
        if processor.is_control(id) or processor.is_unknown(id) or processor.is_unused(id):
            return b""
        piece = str(processor.id_to_piece(id))
        return bytes([int(piece[3:5], 16)]) if processor.is_byte(id) else piece.replace(SPACE, " ").encode()

    def encode_array(self, text: str) -> Ids:
        return np.array(self._processor.encode(text, out_type=int), np.uint32)

    def settings(self) -> dict[str, object]:
        return {"end_of_text": self.end_text}

    def save(self, directory: Path) -> None:
        super().save(directory)
        (directory / MODEL).write_bytes(self._model)
