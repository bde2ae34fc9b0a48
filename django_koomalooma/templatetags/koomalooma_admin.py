"""What the admin's own templates ask for. The answers come from ``overview`` and ``review``."""

from __future__ import annotations

import datetime as dt

from django import template
from django.utils import timezone

from ..models import Commitment
from ..overview import Overview, Sending, read_overview, read_stop
from ..status import age, moment

register = template.Library()


@register.simple_tag
def koomalooma_overview() -> Overview:
    """Return all that the app's first page shows."""
    return read_overview()


@register.simple_tag
def koomalooma_stop() -> Sending | None:
    """Return why sending is stopped, or nothing."""
    return read_stop()


@register.filter
def age_of(at: dt.datetime) -> str:
    """Say how long ago it was, in seconds where it was just now."""
    return age(at, timezone.now())


@register.filter
def clock(at: dt.datetime) -> str:
    """Show a time: the hour alone where it is today."""
    return moment(at)


@register.filter
def plain_reason(row: Commitment) -> str:
    """Return a commitment's reason without the technical half of what is unclear."""
    return row.reason.partition(":")[0] if row.status == Commitment.Status.IN_DOUBT else row.reason


@register.filter
def customer_name(row: Commitment) -> str:
    """Name the customer of a commitment."""
    return str(row.user) if row.user_id else "Guest"
