"""Delivery against the sandbox: from owed to issued, and what each answer does to a commitment."""

from __future__ import annotations

import pytest

from django_koomalooma.delivery import deliver_due
from django_koomalooma.earning import earn
from django_koomalooma.sandbox import Sandbox
from django_koomalooma.statuses import CommitmentStatus
from tests.factories import CampaignFactory, make_event

pytestmark = pytest.mark.django_db


def test_deliver_issues_what_was_earned_and_keeps_the_answer(sandbox: Sandbox) -> None:
    campaign = CampaignFactory()
    row = earn(make_event())

    run = deliver_due()

    row.refresh_from_db()
    assert (run.leased, run.issued, run.stopped, run.more) == (1, 1, "", False)
    assert (row.status, row.loyalty_units, row.reason) == (CommitmentStatus.ISSUED, 500, "")
    (booking,) = sandbox.bookings()
    assert booking["campaign_id"] == campaign.remote_id
    assert booking["transaction_value"] == "100.00"
    assert booking["promotion_goal_description"] == f"Order ORDER-1 KL-{row.trace_key}"
    attempt = row.attempts.get()
    assert (attempt.outcome, attempt.http_status) == ("answered", 201)
