"""Commitments, read-only: the list, and the page of one with all that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import review
from ..events import format_amount
from ..models import Commitment
from ..replies import FIELDS
from ..status import moment
from ..statuses import CommitmentStatus
from .decisions import decide_about_sending, make_action
from .history import AttemptInline, DecisionInline
from .listing import (
    CampaignFilter,
    CappedChangeList,
    CappedPaginator,
    GoalFilter,
    RecordedFilter,
    StatusFilter,
    find_commitments,
)

if TYPE_CHECKING:
    CommitmentBase = admin.ModelAdmin[Commitment]
else:
    CommitmentBase = admin.ModelAdmin

UNKNOWN = "-"

_GUIDES = {
    Commitment.Status.IN_DOUBT: gettext_lazy(
        "The points may have arrived, or not. Ask koomalooma's support, quoting {code}, or look at their "
        "next invoice. Then choose."
    ),
    Commitment.Status.REFUSED: gettext_lazy(
        "koomalooma said no; the reason is below. Have it put right and send again, or cancel."
    ),
    Commitment.Status.WRITTEN_OFF: gettext_lazy(
        "Somebody gave this up. If it turns out that the points did arrive, say so."
    ),
    Commitment.Status.SENDING: gettext_lazy("It is being sent. Look again in some minutes."),
    Commitment.Status.SKIPPED: gettext_lazy(
        "No points, for the reason below. You can give them all the same."
    ),
}
"""What a clerk can do about a commitment, by status."""


def _answer_field(name: str) -> Any:
    """Return a read-only field of koomalooma's answer, under koomalooma's own name."""

    @admin.display(description=name)
    def answer(obj: Commitment) -> str:
        reply = obj.reply if isinstance(obj.reply, dict) else {}
        value = reply.get(name)
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {item}" for key, item in value.items())
        return UNKNOWN if value is None or value == "" else str(value)

    return answer


_ANSWER = [_answer_field(name) for name in FIELDS]


def _find_note(verb: review.Verb, row: Commitment) -> str:
    """Say from when what is unclear may be sent again: until then its answer may still come."""
    if verb.name != "send_again" or row.status != Commitment.Status.IN_DOUBT:
        return ""
    last = row.attempts.order_by("-started_at").values_list("started_at", flat=True).first()
    if last is None or timezone.now() >= last + review.WAIT:
        return ""
    words = _("“{verb}” is possible from {time}: until then the answer to the last call may still come.")
    return words.format(verb=verb.label, time=moment(last + review.WAIT))


def status_words(row: Commitment) -> str:
    """Return the status as a clerk reads it."""
    if row.status == Commitment.Status.QUEUED and row.due_at and row.due_at > timezone.now():
        when = timezone.localtime(row.due_at) if timezone.is_aware(row.due_at) else row.due_at
        return _("On hold until {date}").format(date=date_format(when, "SHORT_DATETIME_FORMAT"))
    return str(row.get_status_display())


@admin.register(Commitment)
class CommitmentAdmin(CommitmentBase):
    """The list of all points, and one page for each."""

    list_display = ("shown_status", "reference", "customer", "campaign", "shown_value", "points", "age")
    list_display_links = ("shown_status", "reference")
    list_filter = (StatusFilter, GoalFilter, CampaignFilter, RecordedFilter)
    # Without the campaign: joined, SQLite walks the whole table from it. The list puts it in.
    list_select_related = ("user", "koomalooma_user", "koomalooma_user__user")
    list_per_page = 50
    list_max_show_all = 0
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("reference",)
    search_help_text = gettext_lazy(
        "The whole order number, code (KL-…), e-mail address, user name, or an id at koomalooma."
    )
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    inlines = (AttemptInline, DecisionInline)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "shown_status", "reason", "reference", "shown_goal", "customer", "campaign",
                    "points", "shown_value", "sent_value", "over_issued_value", "code", "description",
                    "occurred_at", "created_at", "due_at", "issued_at", "updated_at",
                )
            },
        ),
        (gettext_lazy("koomalooma's answer"), {"classes": ("koo-answer",), "fields": _ANSWER}),
        (
            gettext_lazy("For developers"),
            {
                "classes": ("collapse",),
                "fields": ("id", "key", "site", "category", "session_id", "tries", "lease", "terms", "reply"),
            },
        ),
    )  # fmt: skip

    actions = [make_action(verb) for verb in review.VERBS.values()]

    # -- columns

    @admin.display(description=gettext_lazy("status"))
    def shown_status(self, obj: Commitment) -> str:
        """Say how it stands."""
        return status_words(obj)

    @admin.display(description=gettext_lazy("customer"))
    def customer(self, obj: Commitment) -> str:
        """Name the customer; a guest has no name here."""
        if obj.user_id:
            return str(obj.user)
        if obj.koomalooma_user_id:
            return str(obj.koomalooma_user)
        return _("Guest") if obj.email_hash else UNKNOWN

    @admin.display(description=gettext_lazy("value"))
    def shown_value(self, obj: Commitment) -> str:
        """Show what it is worth now."""
        return f"{format_amount(obj.net_value, obj.currency)} {obj.currency}"

    @admin.display(description=gettext_lazy("value sent"))
    def sent_value(self, obj: Commitment) -> str:
        """Show the value that was sent last."""
        if obj.transaction_value is None:
            return UNKNOWN
        return f"{format_amount(obj.transaction_value, obj.currency)} {obj.currency}"

    @admin.display(description=gettext_lazy("sent too much"))
    def over_issued_value(self, obj: Commitment) -> str:
        """Show what was refunded after the points were sent; koomalooma cannot take points back."""
        if not obj.over_issued:
            return UNKNOWN
        return f"{format_amount(obj.over_issued, obj.currency)} {obj.currency}"

    @admin.display(description=gettext_lazy("points"))
    def points(self, obj: Commitment) -> str:
        """Show the points that koomalooma booked."""
        if obj.loyalty_units is None:
            return _("Unknown") if obj.status == Commitment.Status.ISSUED else UNKNOWN
        return f"{obj.loyalty_units:,}"

    @admin.display(description=gettext_lazy("rewarded for"))
    def shown_goal(self, obj: Commitment) -> str:
        """Show the goal."""
        return obj.goal.capitalize()

    @admin.display(description=gettext_lazy("code"))
    def code(self, obj: Commitment) -> str:
        """Show what to quote to koomalooma's support."""
        return f"KL-{obj.trace_key}"

    @admin.display(description=gettext_lazy("age"))
    def age(self, obj: Commitment) -> str:
        """Show how long ago it was recorded."""
        return timesince(obj.created_at, depth=1)

    # -- who may what

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Allow what can be taken back: send now, hold, cancel, restore."""
        return request.user.has_perm("koomalooma.manage_commitment")

    def has_settle_permission(self, request: HttpRequest) -> bool:
        """Allow what decides about money for ever: it arrived, send again, give up."""
        return request.user.has_perm("koomalooma.settle_commitment")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Points come from the shop's events only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Commitment | None = None) -> bool:
        """Nothing is typed into a commitment; decisions are actions."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Commitment | None = None) -> bool:
        """What happened stays."""
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Commitment], search_term: str
    ) -> tuple[QuerySet[Commitment], bool]:
        """Find by whole, indexed values only: a part of a word would read the whole table."""
        term = search_term.strip()
        if not term:
            return queryset, False
        found = find_commitments(term)
        request._koomalooma_found = len(found)  # type: ignore[attr-defined]  # read by get_paginator
        return queryset.filter(pk__in=found), False

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> CappedPaginator:
        """Tell it what a search without filters has found, so that nothing is counted twice."""
        paginator = CappedPaginator(*args, **kwargs)
        if request.GET.keys() <= {"q", "p"}:
            paginator.known = getattr(request, "_koomalooma_found", None)
        return paginator

    # -- pages

    def get_urls(self) -> list[URLPattern]:
        """Add the decisions about sending."""
        page = self.admin_site.admin_view(self.sending_view)
        return [path("sending/<slug:name>/", page, name="koomalooma_sending"), *super().get_urls()]

    def sending_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Decide about sending as a whole: pause it, let it go on."""
        return decide_about_sending(self, request, name)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Offer beside a commitment what may be decided about it."""
        row = self.get_object(request, object_id)
        context: dict[str, Any] = {}
        if row is not None and self.has_view_permission(request, row):
            context = {
                "title": f"{row.reference}: {status_words(row)}",
                "subtitle": None,
                "guide": str(_GUIDES.get(CommitmentStatus(row.status), "")).format(code=self.code(row)),
                "verbs": (verbs := self._offers(request, row)),
                "notes": [note for verb in verbs if (note := _find_note(verb, row))],
            }
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Name the list in a clerk's words."""
        return super().changelist_view(request, {"title": _("All points"), **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Count once, and no further than the list goes."""
        return CappedChangeList

    def get_fieldsets(self, request: HttpRequest, obj: Commitment | None = None) -> Any:
        """Show koomalooma's answer where there is, or should be, one."""
        has_answer = obj is None or obj.reply is not None or obj.status == Commitment.Status.ISSUED
        return [part for part in self.fieldsets if has_answer or part[1]["fields"] is not _ANSWER]

    def get_inlines(self, request: HttpRequest, obj: Commitment | None = None) -> list[Any]:
        """Leave out an empty history of decisions."""
        if obj is not None and not obj.decisions.exists():
            return [AttemptInline]
        return list(self.inlines)

    def _offers(self, request: HttpRequest, row: Commitment) -> list[review.Verb]:
        may = {"manage": self.has_manage_permission(request), "settle": self.has_settle_permission(request)}
        offers = []
        for verb in review.VERBS.values():
            if not may[verb.permission] or row.status not in verb.before:
                continue
            if verb.name == "restore" and row.status == Commitment.Status.REFUSED and may["settle"]:
                continue  # "send again" says the same
            if verb.name == "reopen" and not review.preview(verb.name, [row])[0].is_allowed:
                continue
            offers.append(verb)
        return offers
