"""What every page of the shop shows: how much is in the basket."""

from django.http import HttpRequest

from shop.basket import Basket


def shop(request: HttpRequest) -> dict[str, Basket]:
    """Return the visitor's basket for the page's head."""
    return {"basket": Basket(request.session)}
