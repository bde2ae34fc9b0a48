"""What is written once and only read here: the calls for a commitment, and what people decided about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import review
from ..client import Verdict
from ..models import Commitment, Decision, DeliveryAttempt

if TYPE_CHECKING:
    AttemptBase = admin.TabularInline[DeliveryAttempt, Commitment]
    DecisionBase = admin.TabularInline[Decision, Commitment]
else:
    AttemptBase = DecisionBase = admin.TabularInline

_OUTCOMES = {
    Verdict.ANSWERED: gettext_lazy("Booked"),
    Verdict.REFUSED: gettext_lazy("Refused"),
    Verdict.NOT_SENT: gettext_lazy("Not sent"),
    Verdict.MISCONFIGURED: gettext_lazy("Not sent: a setting is wrong"),
    Verdict.LATER: gettext_lazy("Asked to wait"),
    Verdict.ACCOUNT: gettext_lazy("Trouble with the account"),
    Verdict.IN_DOUBT: gettext_lazy("Unclear"),
    "": gettext_lazy("Under way, or cut off"),
}


class History:
    """What is written once: nobody adds to it, changes it or deletes it here."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("koomalooma.view_commitment")


class AttemptInline(History, AttemptBase):
    """Each call for the commitment."""

    model = DeliveryAttempt
    verbose_name_plural = gettext_lazy("Calls to koomalooma")
    fields = ("number", "started_at", "shown_outcome", "http_status", "duration", "error", "reply")
    readonly_fields = ("shown_outcome",)

    @admin.display(description=gettext_lazy("outcome"))
    def shown_outcome(self, obj: DeliveryAttempt) -> str:
        """Say what came of the call."""
        return str(_OUTCOMES.get(obj.outcome, obj.outcome))


class DecisionInline(History, DecisionBase):
    """What people decided about it."""

    model = Decision
    verbose_name_plural = gettext_lazy("Decisions")
    fields = ("at", "by", "shown_what", "before", "after", "why")
    readonly_fields = ("shown_what",)

    @admin.display(description=gettext_lazy("what"))
    def shown_what(self, obj: Decision) -> str:
        """Name the decision as its button does."""
        return review.VERBS[obj.what].label if obj.what in review.VERBS else _("Late answer")
