"""Its addresses."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

shop: Any = apps.get_app_config("oscar")
urlpatterns = [
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include(shop.urls[0])),
]
