"""``koomalooma_reconcile``: settles what is unclear from a statement of koomalooma's.

Compared in `reconcile.py`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...models import Commitment
from ...reconcile import (
    FIELDS,
    Finding,
    Match,
    UnreadableStatement,
    compare,
    find_missing,
    read_statement,
    settle,
)
from ...status import moment
from ..database import needs_tables

MISSING_SHOWN = 20


class Command(BaseCommand):
    """Compare, show, and with ``--apply`` settle."""

    help = (
        "Settle what is unclear from any CSV statement of koomalooma's. Without --apply nothing is changed. "
        "Exit code: 0, or 1 where the statement shows a double or contradicts us."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the file and its options."""
        fields = "; ".join(f"{name}: {meaning}" for name, meaning in FIELDS.items())
        parser.add_argument("file", nargs="?", metavar="FILE.csv")
        parser.add_argument(
            "--map",
            nargs="+",
            action="extend",
            metavar="COLUMN=FIELD",
            help=f"which column of the file holds what. {fields}. By default the names of koomalooma's API.",
        )
        parser.add_argument("--encoding", default="utf-8-sig", help="of the file; utf-8 by default")
        parser.add_argument("--delimiter", default="", help="of the columns; by default as the header shows")
        parser.add_argument(
            "--by", default="koomalooma_reconcile", help="who decides, kept with each decision"
        )
        parser.add_argument("--apply", action="store_true", help="settle what arrived, instead of showing it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Read, compare, print, settle."""
        with needs_tables():
            self._handle(options)

    def _handle(self, options: Mapping[str, Any]) -> None:
        pairs: list[str] = options["map"] or []
        name = options["file"]
        if name is None and pairs and "=" not in pairs[-1]:
            name = pairs.pop()  # the file came last, behind the map
        if not name:
            raise CommandError("Which file? koomalooma_reconcile FILE.csv --map COLUMN=FIELD …")
        path = Path(name)
        delimiter = options["delimiter"].replace("\\t", "\t")
        if len(delimiter) > 1:
            raise CommandError(f"--delimiter {delimiter!r}: give one character.")
        try:
            lines = read_statement(path, _read_map(pairs), encoding=options["encoding"], delimiter=delimiter)
        except UnreadableStatement as error:
            raise CommandError(str(error)) from None
        matches = compare(lines)
        self._show(matches)
        self._show_missing(find_missing(matches))
        counts = Counter(match.finding for match in matches)
        self.stdout.write("")
        for finding in Finding:
            if counts[finding]:
                self.stdout.write(f"{counts[finding]:6} {finding}")
        if options["apply"]:
            done, left_out = settle(matches, options["by"], path.name)
            for match, reason in left_out:
                self.stdout.write(f"Line {match.line.number} was left out: {reason}")
            self.stdout.write(self.style.SUCCESS(f"{done} settled."))
        elif counts[Finding.SETTLES]:
            self.stdout.write("Nothing was changed. With --apply what arrived is settled.")
        if any(finding.is_loud for finding in counts):
            sys.exit(1)

    def _show(self, matches: Sequence[Match]) -> None:
        shown = [match for match in matches if match.finding not in (Finding.AGREES, Finding.REPEATED)]
        shown.sort(key=lambda match: list(Finding).index(match.finding))
        if shown:
            self.stdout.write(f"{'line':>6}  {'code':15} {'order':20} what it means")
        for match in shown:
            row, line = match.row, match.line
            code = row.trace_key if row else line.trace_key
            code, order = f"KL-{code}" if code else "-", row.reference if row else "-"
            text = f"{line.number:6}  {code:15} {order[:20]:20} {match.finding}: {match.sentence}"
            self.stdout.write(self.style.ERROR(f"!! {text}") if match.finding.is_loud else f"   {text}")

    def _show_missing(self, rows: Sequence[Commitment]) -> None:
        if not rows:
            return
        self.stdout.write("")
        self.stdout.write(f"{len(rows)} unclear and not in this statement (does it cover their time?):")
        for row in rows[:MISSING_SHOWN]:
            self.stdout.write(f"   KL-{row.trace_key} {row.reference[:20]:20} {moment(row.updated_at)}")
        if len(rows) > MISSING_SHOWN:
            self.stdout.write(f"   and {len(rows) - MISSING_SHOWN} more")


def _read_map(pairs: Sequence[str]) -> Mapping[str, str] | None:
    if not pairs:
        return None
    columns: dict[str, str] = {}
    for pair in pairs:
        column, equals, field = pair.rpartition("=")
        if not equals or not column or not field:
            raise CommandError(f"--map {pair}: write COLUMN=FIELD.")
        if column in columns:
            raise CommandError(f"--map {pair}: the column {column!r} is given twice.")
        columns[column] = field
    return columns
