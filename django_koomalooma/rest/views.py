"""The views. Authentication, throttling and rendering are the shop's REST framework defaults."""

from __future__ import annotations

from django.apps import apps
from django.db.models import QuerySet
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from rest_framework import generics, pagination, permissions, renderers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..conf import conf
from ..models import Commitment
from ..widget import session_id_for
from .serializers import CommitmentSerializer


class _Renderers(APIView):
    """The shop's renderers; JSON alone where the templates of the browsable pages are not installed."""

    def get_renderers(self) -> list[renderers.BaseRenderer]:
        if apps.is_installed("rest_framework"):
            return list(super().get_renderers())
        return [renderers.JSONRenderer()]


class CommitmentPagination(pagination.PageNumberPagination):
    """Twenty to a page, at most a hundred, whatever the shop's default says (it may be "no pages")."""

    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100


@method_decorator(never_cache, name="dispatch")
class CommitmentListView(_Renderers, generics.ListAPIView[Commitment]):
    """List the signed-in customer's own commitments, newest first."""

    permission_classes = (permissions.IsAuthenticated,)
    serializer_class = CommitmentSerializer
    pagination_class = CommitmentPagination

    def get_queryset(self) -> QuerySet[Commitment]:
        """Return the customer's own rows. By key: a stateless token's user is no row of the user table."""
        pk = self.request.user.pk
        if pk is None:  # would find the rows of all guests
            return Commitment.objects.none()
        return Commitment.objects.filter(user_id=pk).order_by("-occurred_at", "-id")


@method_decorator(never_cache, name="dispatch")
class SessionView(_Renderers):
    """Tell a front end what koomalooma's widget needs; guests may ask too, since they see the widget."""

    permission_classes = (permissions.AllowAny,)

    def get(self, request: Request) -> Response:
        """Return the partner id and this visitor's session id, ``null`` where the shop has no sessions."""
        return Response({"partner_id": conf.partner_id, "session_id": session_id_for(request) or None})
