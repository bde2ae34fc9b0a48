"""``koomalooma_deliver``: sends what is due, without Celery."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from ...delivery import deliver_due
from ..database import needs_tables


class Command(BaseCommand):
    """Run deliveries until nothing is due; for cron, each minute."""

    help = "Send what is due to koomalooma, until nothing is left. Safe at any time, also twice at once."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, and say in a line what was done."""
        while True:
            with needs_tables():
                run = deliver_due()
            self.stdout.write(
                f"sent {run.issued}, refused {run.refused}, unclear {run.in_doubt + run.abandoned}, "
                f"waiting again {run.requeued}, cancelled {run.cancelled}"
            )
            if run.stopped:
                self.stdout.write(self.style.WARNING(run.stopped))
            if not run.more:
                break
