"""What a customer may read of a commitment, field by field. What is not named here is not shown."""

from __future__ import annotations

import datetime as dt
from typing import Any

from rest_framework import serializers

from ..events import format_amount
from ..models import Commitment
from ..replies import FIELDS
from ..statuses import CommitmentStatus


class CommitmentSerializer(serializers.ModelSerializer[Commitment]):
    """One thing that the customer did, and the points for it.

    ``reason`` stays inside: it may quote koomalooma's answer or a colleague's words.
    """

    code = serializers.CharField(source="trace_key")
    value = serializers.SerializerMethodField("read_value")  # DRF has a get_value of its own
    points = serializers.IntegerField(source="loyalty_units")
    sends_at = serializers.SerializerMethodField()
    koomalooma = serializers.SerializerMethodField()

    class Meta:
        model = Commitment
        fields = (
            "code",
            "status",
            "goal",
            "reference",
            "description",
            "site",
            "value",
            "currency",
            "points",
            "occurred_at",
            "sends_at",
            "issued_at",
            "koomalooma",
        )
        read_only_fields = fields

    def read_value(self, row: Commitment) -> str:
        """Return what it is worth now, as ``"1234.50"``."""
        return format_amount(row.net_value, row.currency)

    def get_sends_at(self, row: Commitment) -> dt.datetime | None:
        """Return when the points will be sent, while they wait; in any other status the column is our own."""
        return row.due_at if row.status == CommitmentStatus.QUEUED else None

    def get_koomalooma(self, row: Commitment) -> dict[str, Any] | None:
        """Return the fifteen fields of koomalooma's answer, unknown ones ``null``; before that ``null``."""
        if row.status != CommitmentStatus.ISSUED:
            return None
        reply = row.reply if isinstance(row.reply, dict) else {}
        return {name: reply.get(name) for name in FIELDS}
