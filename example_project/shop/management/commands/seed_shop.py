"""Fill the example shop: products, two campaigns and a member of staff. Safe to repeat."""

from argparse import ArgumentParser
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.utils import timezone

from django_koomalooma.models import Campaign
from shop.models import Product

PRODUCTS = [
    ("mug", "Stoneware mug", "Thrown by hand, holds a proper cup of tea.", "14.50"),
    ("candle", "Beeswax candle", "Burns for thirty quiet hours.", "9.90"),
    ("notebook", "Linen notebook", "160 pages that take ink well.", "18.00"),
    ("plant", "Jade plant", "Forgives a holiday without water.", "24.00"),
    ("lamp", "Desk lamp", "Warm light, brass arm, a long cable.", "89.00"),
    ("scarf", "Wool scarf", "Undyed lambswool, woven in one piece.", "49.50"),
]


class Command(BaseCommand):
    """Make what a demonstration needs."""

    help = "Fill the example shop with products, campaigns for purchases and sign-ups, and an admin user."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the admin's name and password."""
        parser.add_argument("--admin", default="admin", help="Name and password of the admin user.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make whatever is missing."""
        for slug, name, description, price in PRODUCTS:
            Product.objects.update_or_create(
                slug=slug, defaults={"name": name, "description": description, "price": Decimal(price)}
            )
        since = timezone.now() - timedelta(minutes=1)
        Campaign.objects.get_or_create(
            remote_id="campaign-purchase",
            defaults={"name": "Every purchase", "goal": "purchase", "starts_at": since},
        )
        Campaign.objects.get_or_create(
            remote_id="campaign-signup",
            defaults={
                "name": "Welcome gift",
                "goal": "signup",
                "fixed_value": Decimal("20.00"),
                "starts_at": since,
            },
        )
        name = options["admin"]
        if not User.objects.filter(username=name).exists():
            User.objects.create_superuser(name, f"{name}@shop.example", name)
        self.stdout.write(f"{len(PRODUCTS)} products, 2 campaigns, admin user {name} (password {name}).")
