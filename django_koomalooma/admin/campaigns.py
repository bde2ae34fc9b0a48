"""Campaigns: the only thing that staff type in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import Campaign

if TYPE_CHECKING:
    # Generic for the type checker only: at run time Django's classes take no brackets.
    CampaignBase = admin.ModelAdmin[Campaign]
else:
    CampaignBase = admin.ModelAdmin


@admin.register(Campaign)
class CampaignAdmin(CampaignBase):
    """Name, id and goal are enough; the rest is folded."""

    list_display = ("name", "remote_id", "goal", "currency", "is_active", "starts_at", "ends_at")
    list_filter = ("is_active",)
    search_fields = ("name", "remote_id")
    actions = None
    fieldsets = (
        (None, {"fields": ("name", "remote_id", "goal")}),
        (_("When"), {"classes": ("collapse",), "fields": ("is_active", "starts_at", "ends_at", "hold_days")}),
        (
            _("What counts"),
            {"classes": ("collapse",), "fields": ("currency", "minimum_value", "fixed_value", "site")},
        ),
        (
            _("What the customer reads at koomalooma"),
            {"classes": ("collapse",), "fields": ("description_template", "category")},
        ),
    )

    def has_delete_permission(self, request: HttpRequest, obj: Campaign | None = None) -> bool:
        """Keep what has a history: switch it off instead. (Django would also list every commitment of it.)"""
        return super().has_delete_permission(request, obj) and (obj is None or not obj.commitments.exists())
