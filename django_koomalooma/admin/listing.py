"""Lists that stay fast at a million rows: capped counts and pages, filters and searches on indexes only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.core.paginator import Paginator
from django.db import connections
from django.db.models import F, Q, QuerySet, Subquery, Value
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Campaign, Commitment, KoomaloomaUser, shorten_reference
from ..status import without_campaign

if TYPE_CHECKING:
    from django.contrib.admin.options import ModelAdmin

    BasePaginator = Paginator[Any]
else:
    BasePaginator = Paginator

MOST = 2000
"""Rows that a list counts and pages through. Deeper, an OFFSET reads all that it skips: filters go there."""

_GOALS = ("purchase", "signup", "referral", "review")


class CappedPaginator(BasePaginator):
    """Counts and pages through the first :data:`MOST` rows only."""

    known: int | None = None
    """How many there are, where a search has told already."""

    @cached_property
    def count(self) -> int:
        """How many rows can be paged through."""
        return min(self.found, MOST)

    @cached_property
    def found(self) -> int:
        """How many there are, up to one more than can be paged through."""
        return self._counted[0]

    @cached_property
    def count_text(self) -> str:
        """How many there are, in words: exact, or estimated (PostgreSQL, whole table), or "more than"."""
        found, estimate = self._counted
        if found <= MOST:
            return f"{found:,}"
        if estimate > MOST:
            return _("about {number:,}").format(number=estimate)
        return _("more than {number:,}").format(number=MOST)

    @cached_property
    def _counted(self) -> tuple[int, int]:
        """The capped count, and the whole table's estimated one or 0; in one statement."""
        if self.known is not None:
            return self.known, 0
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin gives nothing else
        connection = connections[rows.db]
        if connection.vendor != "postgresql" or rows.query.where:
            return rows.order_by()[: MOST + 1].count(), 0
        table = connection.ops.quote_name(rows.model._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM {table} LIMIT %s) capped), reltuples::bigint "  # noqa: S608 - the table's own name, quoted
                "FROM pg_class WHERE oid = %s::regclass",
                [MOST + 1, table],
            )
            found, estimate = cursor.fetchone()
        return int(found), int(estimate)


class CappedChangeList(ChangeList):
    """A list that does not call a capped count a result, and takes the campaigns from its filters."""

    def get_results(self, request: HttpRequest) -> None:
        """Leave the number beside the search box out: the one below the list says how it was counted.

        The campaigns, which the filters have read anyway, are put into the rows.
        """
        super().get_results(request)
        self.full_result_count = self.result_count
        known = {campaign.pk: campaign for campaign in _campaigns(request)}
        for row in self.result_list:
            if row.campaign_id in known:
                row.campaign = known[row.campaign_id]


def user_terms(term: str) -> Q:
    """Return which users a search term names: by the whole user name or e-mail address."""
    users = get_user_model()
    terms = Q(**{users.USERNAME_FIELD: term})
    if "@" in term:
        terms |= Q(**{f"{users.get_email_field_name()}__in": {term, term.lower()}})
    return terms


def find_commitments(term: str) -> list[int]:
    """Return the ids of at most 1,000 commitments that a search term names.

    Whole values only, each arm with an index of its own: order number, code (with or without ``KL-``),
    ids at koomalooma, the customer's ids, user name and e-mail address. One statement, for an e-mail address
    two. The customer is a scalar subquery: given a join, PostgreSQL read the whole table.
    """
    rows = Commitment.objects.order_by()
    users, customers = get_user_model()._default_manager, KoomaloomaUser.objects
    code = term.upper().removeprefix("KL-")
    arms = [
        rows.filter(reference=shorten_reference(term)),
        rows.filter(remote_id=term[:255], issued_at__isnull=False),
    ]
    if "@" in term:
        found = list(users.filter(user_terms(term)).values_list("pk", flat=True)[:100])
        arms.append(rows.filter(user__in=found))
    else:
        arms.append(rows.filter(user=_first(users.filter(user_terms(term)))))
        arms.append(rows.filter(koomalooma_user=_first(customers.filter(remote_id=term[:255]))))
        arms.append(rows.filter(koomalooma_user=_first(customers.filter(partner_user_id=term[:32]))))
    if len(code) == 12:
        arms.append(rows.filter(trace_key=code))
    first, *others = (arm.values_list("pk", flat=True) for arm in arms)
    return list(first.union(*others)[:1000])


def _first(rows: QuerySet[Any]) -> Subquery:
    return Subquery(rows.order_by("pk").values("pk")[:1])


def _campaigns(request: HttpRequest) -> list[Campaign]:
    # Two filters need them: read once for each request.
    found: list[Campaign] | None = getattr(request, "_koomalooma_campaigns", None)
    if found is None:
        found = list(Campaign.objects.all()[:200])
        request._koomalooma_campaigns = found  # type: ignore[attr-defined]  # kept for this request only
    return found


class GoalFilter(admin.SimpleListFilter):
    """By what the points are for; the choices come from the campaigns, not from a million rows."""

    title = gettext_lazy("rewarded for")
    parameter_name = "goal"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Offer the goals of the API and those of the shop's campaigns."""
        own = {campaign.goal for campaign in _campaigns(request)} - set(_GOALS)
        return [(goal, goal.capitalize()) for goal in (*_GOALS, *sorted(own))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the goal's rows."""
        return queryset.filter(goal=self.value()) if self.value() else queryset


class CampaignFilter(admin.SimpleListFilter):
    """By campaign, or by the want of one."""

    title = gettext_lazy("campaign")
    parameter_name = "campaign"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Offer each campaign."""
        named = [(str(campaign.pk), campaign.name) for campaign in _campaigns(request)]
        return [*named, ("none", _("No campaign"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the campaign's rows."""
        value = self.value()
        if value == "none":
            return without_campaign(queryset)
        return queryset.filter(campaign_id=int(value)) if value and value.isdecimal() else queryset


class RecordedFilter(admin.SimpleListFilter):
    """By when it was recorded. A date hierarchy does the same at forty times the cost."""

    title = gettext_lazy("recorded")
    parameter_name = "recorded"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Offer three spans: what is older is found by a search."""
        return [
            ("today", _("Today")),
            ("7", _("Past 7 days")),
            ("30", _("Past 30 days")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep what was recorded then."""
        now = timezone.now()
        today = (timezone.localtime(now) if timezone.is_aware(now) else now).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        match self.value():
            case "today":
                return queryset.filter(created_at__gte=today)
            case "7" | "30" as days:
                return queryset.filter(created_at__gte=today - dt.timedelta(days=int(days)))
        return queryset


class StatusFilter(admin.SimpleListFilter):
    """By status, with "on hold" and "needs a decision" beside the statuses themselves."""

    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterator[tuple[str, str]]:
        """Offer the statuses in the words of the list."""
        yield "decide", _("Needs a decision")
        for value, label in Commitment.Status.choices:
            yield value, str(label)
            if value == Commitment.Status.QUEUED:
                yield "held", _("On hold")
        yield "over_issued", _("Sent too much")

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the rows of that status."""
        match self.value():
            case "decide":
                return queryset.filter(status__in=[Commitment.Status.IN_DOUBT, Commitment.Status.REFUSED])
            case "held":
                return queryset.filter(status=Commitment.Status.QUEUED, due_at__gt=timezone.now())
            case Commitment.Status.QUEUED.value:
                return queryset.filter(status=Commitment.Status.QUEUED, due_at__lte=timezone.now())
            case "over_issued":
                # The newest, sorted by an expression: given the id, PostgreSQL reads the whole table by it.
                newest = Commitment.objects.over_issued().order_by((F("pk") + Value(0)).desc())
                return queryset.filter(pk__in=list(newest.values_list("pk", flat=True)[: MOST + 1]))
            case str() as status if status in Commitment.Status.values:
                return queryset.filter(status=status)
        return queryset
