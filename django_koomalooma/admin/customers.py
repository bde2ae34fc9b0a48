"""Customers as koomalooma knows them. Only the id at koomalooma can be changed, by staff who may manage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import KoomaloomaUser
from .listing import CappedPaginator, user_terms

if TYPE_CHECKING:
    CustomerBase = admin.ModelAdmin[KoomaloomaUser]
else:
    CustomerBase = admin.ModelAdmin


@admin.register(KoomaloomaUser)
class KoomaloomaUserAdmin(CustomerBase):
    """Read-only but for the id that goes into the address of each call (O2)."""

    list_display = ("customer", "partner_user_id", "remote_id", "registered_at")
    list_select_related = ("user",)
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("partner_user_id",)
    search_help_text = _("The whole user name, e-mail address or id.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    actions = None
    fields = ("customer", "partner_user_id", "remote_id", "registered_at", "created_at")
    readonly_fields = ("customer", "partner_user_id", "registered_at", "created_at")

    @admin.display(description=_("customer"))
    def customer(self, obj: KoomaloomaUser) -> str:
        """Name the customer, or the guest."""
        return str(obj)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[KoomaloomaUser], search_term: str
    ) -> tuple[QuerySet[KoomaloomaUser], bool]:
        """Find by whole, indexed values only: a part of a word would read the whole table."""
        term = search_term.strip()
        if not term:
            return queryset, False
        users = get_user_model()._default_manager.filter(user_terms(term)).values("pk")
        everyone = KoomaloomaUser.objects.order_by()
        found = everyone.filter(partner_user_id=term).values("pk").union(
            everyone.filter(remote_id=term).values("pk"), everyone.filter(user__in=users).values("pk")
        )  # fmt: skip
        return queryset.filter(pk__in=[row["pk"] for row in found[:1000]]), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Customers are made when their first points are sent."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: KoomaloomaUser | None = None) -> bool:
        """A customer's id must always stay the same (R8)."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: KoomaloomaUser | None = None) -> bool:
        """Allow staff who may manage points."""
        return request.user.has_perm("koomalooma.manage_commitment")
