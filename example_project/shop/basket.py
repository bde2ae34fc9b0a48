"""The basket: product ids and quantities, kept in the visitor's session."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from django.contrib.sessions.backends.base import SessionBase

from shop.models import Product

SESSION_KEY = "basket"
MOST_OF_ONE = 20


@dataclass(frozen=True)
class BasketLine:
    """One product in the basket."""

    product: Product
    quantity: int

    @property
    def total(self) -> Decimal:
        """The price of the line."""
        return self.product.price * self.quantity


class Basket:
    """Read and change the basket of one session."""

    def __init__(self, session: SessionBase) -> None:
        self.session = session
        self.quantities: dict[str, int] = session.get(SESSION_KEY, {})

    def __len__(self) -> int:
        return sum(self.quantities.values())

    def __iter__(self) -> Iterator[BasketLine]:
        for product in Product.objects.filter(pk__in=self.quantities):
            yield BasketLine(product, self.quantities[str(product.pk)])

    @property
    def total(self) -> Decimal:
        """The price of everything in the basket."""
        return sum((line.total for line in self), Decimal("0.00"))

    def add(self, product: Product) -> None:
        """Put one more of the product into the basket."""
        self.set(product, self.quantities.get(str(product.pk), 0) + 1)

    def set(self, product: Product, quantity: int) -> None:
        """Keep so many of the product in the basket; none takes it out."""
        self.quantities.pop(str(product.pk), None)
        if quantity > 0:
            self.quantities[str(product.pk)] = min(quantity, MOST_OF_ONE)
        self.session[SESSION_KEY] = self.quantities

    def clear(self) -> None:
        """Empty the basket."""
        self.quantities = {}
        self.session[SESSION_KEY] = self.quantities
