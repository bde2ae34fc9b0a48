"""The pages on which staff decide: what exactly will happen to each row; by POST only, that it does."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from .. import overview, review
from ..exceptions import NotAllowed
from ..models import Commitment

if TYPE_CHECKING:
    from django.contrib.admin.options import ModelAdmin

    Admin = ModelAdmin[Commitment]

MOST_AT_ONCE = 300
_SENDS = frozenset({"send_now", "send_again", "restore"})


class WishForm(forms.Form):
    """What the person has to say with a decision; only the fields that the decision can use."""

    until = forms.DateField(
        label="Hold back until", widget=forms.DateInput(attrs={"type": "date"}), help_text="Sent on this day."
    )
    commitment_id = forms.CharField(
        label="Id at koomalooma", max_length=255, required=False, help_text="If you know it."
    )
    units = forms.IntegerField(
        label="Points", min_value=0, max_value=2**63 - 1, required=False, help_text="If you know them."
    )
    why = forms.CharField(
        label="Why",
        max_length=1000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="If you like. It is kept with your name.",
    )

    def __init__(self, verb: review.Verb, data: Any, *, is_single: bool) -> None:
        super().__init__(data, initial={"until": timezone.localdate() + dt.timedelta(days=14)})
        if verb.name != "hold":
            del self.fields["until"]
        if verb.name != "settle" or not is_single:
            del self.fields["commitment_id"], self.fields["units"]
        self.fields["why"].required = verb.needs_why
        if verb.permission == "settle":
            self.fields["why"].help_text = "How do you know? It is kept with your name."

    def clean_until(self) -> dt.datetime:
        """Return the start of the day in the project's time zone; only a day to come."""
        day: dt.date = self.cleaned_data["until"]
        if not dt.date.today() < day < dt.date.today() + review.LONGEST_HOLD:
            raise forms.ValidationError("Choose a day after today, ten years ahead at most.")
        start = dt.datetime.combine(day, dt.time.min)
        return timezone.make_aware(start) if timezone.is_aware(timezone.now()) else start

    @property
    def wish(self) -> review.Wish:
        """What was said, of a valid form."""
        return review.Wish(**self.cleaned_data)


def make_action(
    verb: review.Verb,
) -> Callable[[Admin, HttpRequest, QuerySet[Commitment]], HttpResponse | None]:
    """Return the admin action of a decision."""

    def action(
        model_admin: Admin, request: HttpRequest, queryset: QuerySet[Commitment]
    ) -> HttpResponse | None:
        return _decide(verb, model_admin, request, queryset)

    action.__name__ = verb.name
    return admin.action(action, description=verb.label, permissions=[verb.permission])


def _decide(
    verb: review.Verb, model_admin: Admin, request: HttpRequest, queryset: QuerySet[Commitment]
) -> HttpResponse | None:
    rows = list(queryset.select_related("user", "campaign").order_by("id")[: MOST_AT_ONCE + 1])
    is_cut, rows = len(rows) > MOST_AT_ONCE, rows[:MOST_AT_ONCE]
    is_confirmed = "confirm" in request.POST
    form = WishForm(verb, request.POST if is_confirmed else None, is_single=len(rows) == 1)
    if is_confirmed and form.is_valid():
        return _carry_out(verb, model_admin, request, rows, form.wish)
    steps = review.preview(verb.name, rows)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": verb.label,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "verb": verb,
        "form": form,
        "allowed": [step for step in steps if step.is_allowed],
        "left_out": [step for step in steps if not step.is_allowed],
        "is_cut": is_cut,
        "most": MOST_AT_ONCE,
        "seen": json.dumps({row.pk: review.version(row) for row in rows}),
        "checkbox": ACTION_CHECKBOX_NAME,
        "back": request.POST.get("back", ""),
        "sending": overview.read_sending() if verb.name in _SENDS else None,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/koomalooma/decide.html", context)


def _carry_out(
    verb: review.Verb, model_admin: Admin, request: HttpRequest, rows: Sequence[Commitment], wish: review.Wish
) -> HttpResponse | None:
    try:
        seen = {int(pk): str(mark) for pk, mark in json.loads(request.POST.get("seen", "{}")).items()}
    except (ValueError, AttributeError, RecursionError):
        seen = {}
    try:
        result = review.decide(verb.name, rows, _person(request), wish, seen=seen)
    except NotAllowed as reason:
        messages.error(request, str(reason))
        return None
    if result.done:
        names = ", ".join(row.reference for row in result.done[:5])
        more = f" and {len(result.done) - 5} more" if len(result.done) > 5 else ""
        messages.success(request, f"{verb.label}: {names}{more}.")
    for row, sentence in result.left_out[:10]:
        messages.warning(request, f"{row.reference} was left as it is. {sentence}")
    if len(result.left_out) > 10:
        messages.warning(request, f"{len(result.left_out) - 10} more were left as they are.")
    if request.POST.get("back") == "page" and len(rows) == 1:
        name = f"{model_admin.admin_site.name}:koomalooma_commitment_change"
        return HttpResponseRedirect(reverse(name, args=[rows[0].pk]))
    return None


def _person(request: HttpRequest) -> AbstractBaseUser:
    if not isinstance(request.user, AbstractBaseUser):
        raise PermissionDenied
    return request.user


def decide_about_sending(model_admin: Admin, request: HttpRequest, name: str) -> HttpResponse:
    """Show what a decision about sending means (GET), and carry it out (POST)."""
    choice = review.CHOICES.get(name)
    if choice is None:
        raise Http404
    if not request.user.has_perm("koomalooma.manage_commitment"):
        raise PermissionDenied
    home = reverse(f"{model_admin.admin_site.name}:app_list", args=["koomalooma"])
    if request.method == "POST":
        try:
            review.choose(name, _person(request), request.POST.get("why", "")[:500])
        except NotAllowed as reason:
            messages.error(request, str(reason))
        else:
            messages.success(request, f"Done: {choice.label}.")
        return HttpResponseRedirect(home)
    sending = overview.read_sending()
    context = {
        **model_admin.admin_site.each_context(request),
        "title": choice.label,
        "opts": model_admin.opts,
        "choice": choice,
        "sending": sending,
        "fits": choice in sending.choices,
        "home": home,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/koomalooma/sending.html", context)
