"""``koomalooma_backfill``: records the paid orders of a period that have no commitment."""

from __future__ import annotations

from .koomalooma_audit import Command as Audit


class Command(Audit):
    """Record what the audit finds missing."""

    help = (
        "Record the paid orders of a period that have no commitment, each under the campaign of the day "
        "it was paid. Look with koomalooma_audit first."
    )
    records = True
