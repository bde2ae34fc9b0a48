"""Wires the app, by hand and without touching the database."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class KoomaloomaConfig(AppConfig):
    """The app. Its label is ``koomalooma``."""

    name = "django_koomalooma"
    label = "koomalooma"
    verbose_name = _("koomalooma points")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what listens."""
        from . import checks, receivers, shops  # models are only there now

        checks.register()
        receivers.connect()
        shops.connect()
