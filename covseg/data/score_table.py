"""A table that people fill in: a CSV of a spreadsheet, every cell with its line and column for the error.

In: a path. Out: a `Sheet` of text. Comma or semicolon; with semicolons a decimal comma is a decimal point.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from covseg.errors import SetRefused, UsageError


@dataclass(frozen=True)
class SheetRow:
    """One line of the file, counted as an editor counts; cells by column, without blanks around them."""

    path: Path
    line: int
    cells: dict[str, str]
    comma: bool = False  # a decimal comma

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def get(self, column: str, absent: str) -> str:
        """Return a cell of a column that the file may lack."""
        return self.cells.get(column, absent)

    def number(self, column: str) -> float:
        """Return a finite number.

        Raises
        ------
        SetRefused
            When the cell holds none.
        """
        text = self.cells[column]
        try:
            value = float(text.replace(",", ".") if self.comma else text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.refuse(column, f"{text!r} is no number; leave the cell empty where there is no score")
        return value

    def refuse(self, column: str, words: str) -> SetRefused:
        """Return the error of one cell."""
        return SetRefused(f"{self.path}, line {self.line}, column {column}: {words}")


@dataclass(frozen=True)
class Sheet:
    """The whole file: its columns in order, names in lower case, and its rows without those that are empty."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[SheetRow, ...]


def read_sheet(path: Path) -> Sheet:
    """Read a table.

    Raises
    ------
    UsageError
        When it is no CSV in UTF-8, has no row, a column without a name, or one twice.
    SetRefused
        When a line has more or fewer cells than there are columns.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: save it as CSV UTF-8") from error
    first = text.partition("\n")[0]
    semicolon = ";" in first and "," not in first
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if semicolon else ",")
    lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if len(lines) < 2:
        raise UsageError(f"{path} has no row: wanted a line of column names and a line an image and reader")
    columns = tuple(name.lower() for name in lines[0][1])
    if "" in columns:
        raise UsageError(f"{path}: column {columns.index('') + 1} has no name; name it, or take it out")
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise UsageError(f"{path} has two columns {twice[0]}: keep one")
    rows = []
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            raise SetRefused(f"{path}, line {number}: {len(cells)} cells; wanted {len(columns)}, one for each column")
        rows.append(SheetRow(path, number, dict(zip(columns, cells, strict=True)), semicolon))
    return Sheet(path, columns, tuple(rows))
