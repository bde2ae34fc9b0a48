"""``koomalooma_audit``: are there commitments for all paid orders of a period?"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections import Counter
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from ...audit import Finding, backfill, find_orders
from ...events import format_amount
from ...exceptions import ConfigurationError
from ..database import needs_tables

MISSING: Final = "missing"
DIFFERENT: Final = "worth something else"
AGAIN: Final = "paid again after it was cancelled"
ADVICE: Final = {
    MISSING: "koomalooma_backfill with the same dates records them.",
    DIFFERENT: "tell the change from the shop, with amend() or order_amended; or decide in the admin.",
    AGAIN: "choose “Give points after all” in the admin, unless they were given by another order.",
}
"""What to do about each kind of finding, in a line."""


def read_day(text: str) -> dt.datetime:
    """Return the beginning of a day, in the project's time zone."""
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: write it as 2026-11-30") from None
    moment = dt.datetime.combine(day, dt.time.min)
    return timezone.make_aware(moment) if timezone.is_aware(timezone.now()) else moment


class Command(BaseCommand):
    """List the paid orders that are missing or differ."""

    help = (
        "Hold the shop's paid orders of a period against the commitments. Exit code: 0, or 1 if one is "
        "missing, worth something else, or paid again after it was cancelled."
    )
    records = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the period."""
        today = timezone.localdate() if timezone.is_aware(timezone.now()) else dt.date.today()
        parser.add_argument(
            "--since", type=read_day, default=read_day((today - dt.timedelta(days=7)).isoformat())
        )
        parser.add_argument(
            "--until", type=read_day, default=read_day((today + dt.timedelta(days=1)).isoformat())
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print a line for each finding, a sum, and what to do about each kind."""
        orders = 0
        found: Counter[str] = Counter()
        try:
            with needs_tables():
                for finding in find_orders(options["since"], options["until"]):
                    orders += 1
                    kind, sentence = self._look_at(finding)
                    if kind:
                        found[kind] += 1
                        self.stdout.write(sentence)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        again = f", {found[AGAIN]} {AGAIN}" if found[AGAIN] else ""
        self.stdout.write(
            f"{orders} paid orders, {found[MISSING]} {MISSING}, {found[DIFFERENT]} {DIFFERENT}{again}."
        )
        if self.records:
            del found[MISSING]
        for kind, advice in ADVICE.items():
            if found[kind]:
                self.stdout.write(f"{kind.capitalize()}: {advice}")
        if found.total() and not self.records:
            sys.exit(1)

    def _look_at(self, finding: Finding) -> tuple[str, str]:
        """Return the kind of finding and its line; record what is missing where this command does."""
        event, row = finding.event, finding.row
        name = f"{event.goal} {event.reference}: {event.value} {event.currency}"
        if row is None:
            new = backfill(finding) if self.records else None
            done = f"recorded: {new.get_status_display()} {new.reason}".rstrip() if new else MISSING
            return MISSING, f"{name}, {done}"
        if finding.is_paid_again:
            return AGAIN, f"{name}, {AGAIN}"
        if finding.is_different:
            worth = format_amount(row.net_value, row.currency)
            return DIFFERENT, f"{name}, but its commitment says {worth} {row.currency}"
        return "", ""
