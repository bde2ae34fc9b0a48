"""A pytest fixture for shops: points earned and delivered in a test, against a sandbox in the same process.

In the ``conftest.py`` at the root of your project: ``pytest_plugins = ["django_koomalooma.testing"]``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest
from django.test import override_settings
from django.utils import timezone

from .sandbox import Sandbox

if TYPE_CHECKING:
    from .delivery import Run
    from .models import Campaign

# pytest loads plugins before Django's apps are there, so what needs models is imported inside the methods.


class Koomalooma:
    """A pretend koomalooma, and the shop's side of it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def campaign(self, goal: str = "purchase", **fields: Any) -> Campaign:
        """Make a campaign that began long ago, without which nothing earns; ``fields`` change it."""
        from .models import Campaign

        values: dict[str, Any] = {
            "name": goal,
            "remote_id": f"campaign-{goal}",
            "goal": goal,
            "starts_at": timezone.now() - dt.timedelta(days=3650),
        }
        return Campaign.objects.create(**values | fields)

    def deliver(self) -> Run:
        """Send what is due, as a worker would, until nothing is left or sending stops.

        Returns:
            What was done, all runs together.
        """
        from .delivery import deliver_due

        total = deliver_due(sweep=False)
        while total.more:
            run = deliver_due(sweep=False)
            for name in ("leased", "issued", "refused", "in_doubt", "requeued", "cancelled", "abandoned"):
                setattr(total, name, getattr(total, name) + getattr(run, name))
            total.more, total.stopped = run.more, run.stopped
        return total

    def bookings(self) -> list[dict[str, Any]]:
        """Return what koomalooma has booked, oldest first, as dicts (``transaction_value``, …)."""
        return self.sandbox.bookings()

    def misbehave(
        self,
        fault: str,
        *,
        times: int | None = 1,
        call: Literal["users", "commitments", "any"] = "commitments",
        **options: Any,
    ) -> None:
        """Let the next calls go wrong; the faults are listed in "The sandbox".

        Args:
            times: How many calls; ``None`` for all until :meth:`behave`.
        """
        self.sandbox.misbehave(fault, times=times, call=call, **options)

    def behave(self) -> None:
        """Withdraw every fault that is still to come."""
        self.sandbox.behave()


@pytest.fixture
def koomalooma() -> Iterator[Koomalooma]:
    """A koomalooma of this test's own, with the settings that point at it. No worker: call ``deliver()``.

    The test needs the database (``django_db``). Points are sent for real over loopback, nowhere else.
    """
    from . import deciding

    deciding.campaigns.drop()
    with (
        Sandbox(durable=False) as sandbox,
        override_settings(
            **sandbox.settings(),
            KOOMALOOMA_MODE="live",
            KOOMALOOMA_WAKE_UP=False,
            KOOMALOOMA_PROXIES={},
            KOOMALOOMA_CA_BUNDLE="",
        ),
    ):
        yield Koomalooma(sandbox)
    deciding.campaigns.drop()
