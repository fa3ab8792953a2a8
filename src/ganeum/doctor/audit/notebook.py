"""A notebook's code as one script, each line of it with its cell."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from ganeum.errors import DataError

MAGIC = re.compile(r"\s*[%!?]|.*\?\s*$")  # a line for Jupyter or the shell, not for Python
OTHER = re.compile(r"\s*%%(?!time\b|timeit\b|capture\b|prun\b)")  # a cell in another language, or a file


def is_one(text: str, path: str) -> bool:
    """Whether it is a notebook, by its name or, where it comes from a pipe, by its beginning."""
    return path.endswith(".ipynb") or (text.lstrip().startswith("{") and '"cells"' in text)


def script(text: str, path: str) -> tuple[str, tuple[str, ...]]:
    """The code, and for each of its lines where it stands: ``cell 3, line 2``. Cells are counted as they are seen, from
    1, those with text, too. A cell that is no Python is left out.

    Raises:
        DataError: it is no notebook.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"it is no notebook that can be read: {error}", where=path) from None
    lines: list[str] = []
    places: list[str] = []
    for number, cell in enumerate(_cells(content), start=1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        said = cell.get("source", cell.get("input", ""))  # input: before version 4 of the format
        source = ("".join(said) if isinstance(said, list) else str(said)).splitlines()
        if source and OTHER.match(source[0]):
            continue
        # In place of what is not Python a `pass`, so that a block of nothing else stays a block.
        source = [re.sub(r"\S.*", "pass", line) if MAGIC.match(line) else line for line in source]
        try:
            ast.parse("\n".join(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        lines += source
        places += [f"{path}, cell {number}, line {line}" for line in range(1, len(source) + 1)]
    if not lines:
        raise DataError("it has no cell with Python in it", where=path)
    return "\n".join(lines) + "\n", tuple(places)


def _cells(content: Any) -> list[Any]:
    if not isinstance(content, dict):
        return []
    cells = content.get("cells")
    if isinstance(cells, list):
        return cells
    sheets = content.get("worksheets")
    sheets = sheets if isinstance(sheets, list) else []
    return [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or []]
