"""``koomalooma_audit``: are there commitments for all paid orders of a period?"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from ...audit import backfill, find_orders
from ...events import format_amount
from ...exceptions import ConfigurationError


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

    help = "Hold the shop's paid orders of a period against the commitments. Ends with 1 if one is missing."
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
        """Print a line for each finding and a sum."""
        orders = missing = different = 0
        try:
            for finding in find_orders(options["since"], options["until"]):
                event, orders = finding.event, orders + 1
                name = f"{event.goal} {event.reference}: {event.value} {event.currency}"
                if finding.row is None:
                    missing += 1
                    row = backfill(finding) if self.records else None
                    done = f"recorded: {row.get_status_display()} {row.reason}".rstrip() if row else "missing"
                    self.stdout.write(f"{name}, {done}")
                elif finding.is_different:
                    different += 1
                    worth = format_amount(finding.row.net_value, finding.row.currency)
                    self.stdout.write(f"{name}, but its commitment says {worth} {finding.row.currency}")
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{orders} paid orders, {missing} missing, {different} worth something else.")
        if missing and not self.records:
            sys.exit(1)
