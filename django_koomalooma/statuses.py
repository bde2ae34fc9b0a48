"""What can be true of a commitment, as sentences, and which statuses may follow. Knows no rows."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import models
from django.utils.translation import gettext_lazy as _


class CommitmentStatus(models.TextChoices):
    """Each status with the words that a shop clerk reads. koomalooma's own words are never used here."""

    QUEUED = "queued", _("Waiting")
    """Owed, and sent as soon as it is due."""
    SENDING = "sending", _("Being sent")
    """Leased by a delivery run; a call may be under way."""
    ISSUED = "issued", _("Sent")
    """koomalooma booked it."""
    REFUSED = "refused", _("Refused")
    """koomalooma said no to this one."""
    IN_DOUBT = "in_doubt", _("Unclear")
    """It may have arrived; a person decides."""
    CANCELLED = "cancelled", _("Cancelled")
    """Withdrawn, and every attempt was refused or proved unsent."""
    WRITTEN_OFF = "written_off", _("Given up")
    """Given up, though it may have arrived."""
    SKIPPED = "skipped", _("No points")
    """No points for this event; the reason stands beside it."""


_S = CommitmentStatus

NEXT: Mapping[CommitmentStatus, frozenset[CommitmentStatus]] = {
    _S.QUEUED: frozenset({_S.SENDING, _S.CANCELLED}),
    _S.SENDING: frozenset({_S.ISSUED, _S.REFUSED, _S.IN_DOUBT, _S.QUEUED}),
    _S.ISSUED: frozenset({_S.IN_DOUBT}),
    _S.REFUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.IN_DOUBT: frozenset({_S.ISSUED, _S.REFUSED, _S.QUEUED, _S.WRITTEN_OFF}),
    _S.CANCELLED: frozenset({_S.QUEUED}),
    _S.WRITTEN_OFF: frozenset({_S.ISSUED}),
    _S.SKIPPED: frozenset({_S.QUEUED}),
}
"""The allowed next statuses (``issued`` goes back to ``in_doubt`` only where a person had settled it)."""


def may_become(now: str, then: str) -> bool:
    """Tell whether a commitment with status ``now`` may get status ``then``."""
    return CommitmentStatus(then) in NEXT[CommitmentStatus(now)]
