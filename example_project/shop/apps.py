"""The shop as a Django app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Name the app for the admin."""

    name = "shop"
    verbose_name = "Shop"
