"""The addresses: ``path("koomalooma/", include("django_koomalooma.rest.urls"))``."""

from __future__ import annotations

from django.urls import path

from .views import CommitmentListView, SessionView

app_name = "koomalooma"
urlpatterns = [
    path("commitments/", CommitmentListView.as_view(), name="commitments"),
    path("session/", SessionView.as_view(), name="session"),
]
