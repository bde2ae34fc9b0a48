"""What the admin's own templates ask for. The answers come from ``overview`` and ``review``."""

from __future__ import annotations

from django import template

from ..models import Commitment
from ..overview import Overview, Sending, read_overview, read_stop

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
def customer_name(row: Commitment) -> str:
    """Name the customer of a commitment."""
    return str(row.user) if row.user_id else "Guest"
