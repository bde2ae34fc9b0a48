"""Compares a statement of koomalooma's, any CSV with a commitment id or our code in it, with our commitments.

Says what each line means for a commitment; settling is `review`'s work, and only of what is beyond doubt.
"""

from __future__ import annotations

import csv
import enum
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.db import router

from . import review
from .exceptions import KoomaloomaError, NotAllowed
from .history import By
from .models import Commitment
from .statuses import CommitmentStatus

FIELDS: Final[Mapping[str, str]] = {
    "commitment_id": "koomalooma's id of the commitment",
    "trace_key": "our code, or a text with KL- and the code in it, as the description",
    "loyalty_units": "the points that were booked",
}
OWN_NAMES: Final[Mapping[str, str]] = {
    "id": "commitment_id",
    "promotion_goal_description": "trace_key",
    "loyalty_units": "loyalty_units",
}
"""Columns that are read without being asked for: koomalooma's own names in its API."""
_CODE = re.compile(r"\bKL-([A-Z2-7]{12})\b")
_BARE_CODE = re.compile(r"(?:KL-)?([A-Z2-7]{12})")
_CHUNK = 500
_S = CommitmentStatus


class UnreadableStatement(KoomaloomaError):
    """Mend the file or the ``--map``: the message names file, line and column."""


class Finding(enum.StrEnum):
    """What a line of the statement means; the loud ones first."""

    DOUBLE = "booked twice"
    CONTRADICTS = "booked, though we did not know"
    CONFLICT = "code and id do not fit"
    DIFFERS = "other points"
    SETTLES = "it arrived"
    AGREES = "known as sent"
    REPEATED = "the same line again"
    UNKNOWN = "not ours"

    @property
    def is_loud(self) -> bool:
        """Whether a person must look at it now."""
        return self in (Finding.DOUBLE, Finding.CONTRADICTS, Finding.CONFLICT, Finding.DIFFERS)


@dataclass(frozen=True, slots=True)
class Line:
    """One booking of the statement; what it does not say is ``""`` or ``None``."""

    number: int
    commitment_id: str
    trace_key: str
    units: int | None


@dataclass(frozen=True, slots=True)
class Match:
    """A line, the commitment it belongs to, and what it means."""

    line: Line
    row: Commitment | None
    finding: Finding
    sentence: str


def read_statement(
    path: Path, columns: Mapping[str, str] | None = None, *, encoding: str = "utf-8-sig", delimiter: str = ""
) -> list[Line]:
    """Read a CSV file with a header.

    Args:
        columns: Which column of the file holds which of :data:`FIELDS`; by default :data:`OWN_NAMES`.
        delimiter: Empty: comma, semicolon or tab, as the header shows.

    Raises:
        UnreadableStatement: The file cannot be read; the message names file, line and column.
    """
    text = _read_text(path, encoding)
    header = text.partition("\n")[0]
    delimiter = delimiter or max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        places = _find_columns(path, names, columns)
        return [
            _read_line(path, reader.line_num, cells, names, places)
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise UnreadableStatement(f"{path}, line {reader.line_num}: {error}.") from None


def _read_text(path: Path, encoding: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableStatement(f"{path}: {error.strerror or error}.") from None
    try:
        text = data.decode(encoding)
    except LookupError:
        raise UnreadableStatement(f"--encoding {encoding}: there is no such encoding.") from None
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = data.count(b"\n", 0, start) + 1
        raise UnreadableStatement(
            f"{path}, line {line}: not {encoding}. Name the encoding, as in --encoding cp1252."
        ) from None
    if not text.strip():
        raise UnreadableStatement(f"{path}: the file is empty.")
    return text


def _find_columns(path: Path, names: Sequence[str], columns: Mapping[str, str] | None) -> Mapping[str, int]:
    there = ", ".join(repr(name) for name in names)
    if columns is None:
        columns = {name: field for name, field in OWN_NAMES.items() if name in names}
    places: dict[str, int] = {}
    for name, field in columns.items():
        if field not in FIELDS:
            raise UnreadableStatement(f"--map {name}={field}: {field!r} is none of {', '.join(FIELDS)}.")
        if field in places:
            raise UnreadableStatement(f"--map {name}={field}: {field} is given twice.")
        if names.count(name) != 1:
            trouble = "there is no such column" if name not in names else "the column is there twice"
            raise UnreadableStatement(f"{path}, line 1, column {name!r}: {trouble}. There are {there}.")
        places[field] = names.index(name)
    if not {"commitment_id", "trace_key"} & places.keys():
        raise UnreadableStatement(
            f"{path}, line 1: say which column finds a commitment, with --map COLUMN=trace_key or "
            f"--map COLUMN=commitment_id. There are {there}."
        )
    return places


def _read_line(
    path: Path, number: int, cells: Sequence[str], names: Sequence[str], places: Mapping[str, int]
) -> Line:
    if len(cells) != len(names):
        raise UnreadableStatement(
            f"{path}, line {number}: {len(cells)} columns where the header has {len(names)}."
        )
    values = {field: cells[place].strip() for field, place in places.items()}
    points = values.get("loyalty_units", "")
    if points and not (points.isascii() and points.isdigit() and int(points) < 2**63):
        raise UnreadableStatement(
            f"{path}, line {number}, column {names[places['loyalty_units']]!r}: {points[:50]!r} is no "
            "whole number of points."
        )
    return Line(
        number=number,
        commitment_id=values.get("commitment_id", ""),
        trace_key=_read_code(values.get("trace_key", "")),
        units=int(points) if points else None,
    )


def _read_code(text: str) -> str:
    """Return the code in a text; the last one.

    Since ours stands at the end and a shop's reference before it.
    """
    codes: list[str] = _CODE.findall(text.upper())
    if codes:
        return codes[-1]
    bare = _BARE_CODE.fullmatch(text.upper())
    return bare[1] if bare else ""


def compare(lines: Sequence[Line]) -> list[Match]:
    """Say what each line means. Writes nothing."""
    by_code = _find(lines, "trace_key", (line.trace_key for line in lines))
    by_id = _find(lines, "remote_id", (line.commitment_id for line in lines))
    rows: dict[int, Commitment] = {}
    of_row: dict[int, list[Line]] = defaultdict(list)
    matches: list[Match] = []
    for line in lines:
        found = {
            row.pk: row for row in (*by_code.get(line.trace_key, ()), *by_id.get(line.commitment_id, ()))
        }
        if not found:
            matches.append(Match(line, None, Finding.UNKNOWN, "No commitment of ours has this code or id."))
        elif len(found) > 1:
            names = ", ".join(f"KL-{row.trace_key}" for row in found.values())
            matches.append(
                Match(line, None, Finding.CONFLICT, f"Code and id belong to different commitments: {names}.")
            )
        else:
            (pk,) = found
            rows |= found
            of_row[pk].append(line)
    owners = Counter(
        commitment_id
        for own in of_row.values()
        for commitment_id in {line.commitment_id for line in own} - {""}
    )
    for pk, own in of_row.items():
        matches += _judge(rows[pk], own, {name for name, count in owners.items() if count > 1})
    return sorted(matches, key=lambda match: match.line.number)


def _find(lines: Sequence[Line], field: str, wanted: Iterable[str]) -> dict[str, list[Commitment]]:
    found: dict[str, list[Commitment]] = defaultdict(list)
    values = sorted(set(wanted) - {""})
    rows = Commitment.objects.using(router.db_for_write(Commitment)).defer("reply", "terms")
    for start in range(0, len(values), _CHUNK):
        for row in rows.filter(**{f"{field}__in": values[start : start + _CHUNK]}):
            found[getattr(row, field)].append(row)
    return found


def _judge(row: Commitment, lines: Sequence[Line], shared: set[str]) -> Iterator[Match]:
    ids = {line.commitment_id for line in lines}
    if ids & shared:
        for line in lines:
            yield Match(line, row, Finding.CONFLICT, "The same id stands beside different codes.")
        return
    if len(lines) > 1 and (len(ids) > 1 or "" in ids):
        numbers = ", ".join(str(line.number) for line in lines)
        sentence = f"Lines {numbers}: {len(lines)} bookings of one commitment."
        for line in lines:
            yield Match(line, row, Finding.DOUBLE, sentence)
        return
    first, *again = lines
    yield Match(first, row, *_judge_line(row, first))
    for line in again:
        yield Match(line, row, Finding.REPEATED, f"As line {first.number}.")


def _judge_line(row: Commitment, line: Line) -> tuple[Finding, str]:
    status = CommitmentStatus(row.status)
    if status in (_S.IN_DOUBT, _S.WRITTEN_OFF):
        points = "points unknown" if line.units is None else f"{line.units:,} points"
        return Finding.SETTLES, f"{status.label} becomes {_S.ISSUED.label}, {points}."
    if status != _S.ISSUED:
        warning = " Hold or cancel it, or it is booked twice." if status in (_S.QUEUED, _S.SENDING) else ""
        return Finding.CONTRADICTS, f"koomalooma booked it, here it is “{status.label}”.{warning}"
    if row.remote_id and line.commitment_id and row.remote_id != line.commitment_id:
        return Finding.DOUBLE, f"Booked as {row.remote_id} before, and as {line.commitment_id} too."
    if row.loyalty_units is not None and line.units is not None and row.loyalty_units != line.units:
        return Finding.DIFFERS, f"{row.loyalty_units:,} points here, {line.units:,} in the statement."
    return Finding.AGREES, ""


def find_missing(matches: Iterable[Match]) -> list[Commitment]:
    """Return what is unclear and not in the statement, oldest first. It proves nothing: mind the period."""
    found = {match.row.pk for match in matches if match.row is not None}
    rows = Commitment.objects.using(router.db_for_write(Commitment)).filter(status=_S.IN_DOUBT)
    return [row for row in rows.defer("reply", "terms").order_by("id") if row.pk not in found]


def settle(matches: Iterable[Match], by: By, evidence: str) -> tuple[int, list[tuple[Match, str]]]:
    """Settle what arrived beyond doubt, each commitment by itself.

    Returns:
        How many were settled, and those left out, with the reason.
    """
    done, left_out = 0, []
    for match in matches:
        if match.finding is not Finding.SETTLES or match.row is None:
            continue
        line = match.line
        row = Commitment.objects.using(router.db_for_write(Commitment)).get(pk=match.row.pk)
        try:
            review.settle(
                row,
                by,
                commitment_id=line.commitment_id,
                units=line.units,
                evidence=f"{evidence}, line {line.number}",
            )
        except NotAllowed as error:
            left_out.append((match, str(error)))
        else:
            done += 1
    return done, left_out
