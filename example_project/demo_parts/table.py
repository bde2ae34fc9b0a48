"""The table order → status → points, read from the shop's database, and its comparison with the ledger of the
sandbox. Needs Django to be set up before it is imported."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User

from django_koomalooma.models import Commitment
from django_koomalooma.statuses import CommitmentStatus
from shop.models import Order, OrderStatus

HEAD = ("order", "customer", "EUR", "payment", "status", "points", "ledger")
WIDTHS = (12, 14, 8, 20, 12, 7, 7)
RIGHT = {2, 5, 6}
MOST_ROWS = 30
UNDER_WAY = (CommitmentStatus.QUEUED, CommitmentStatus.SENDING)
Booking = Mapping[str, Any]


@dataclass(frozen=True)
class Since:
    """What the database held before this demo began: a database of one's own may have seen others."""

    order: int
    commitment: int

    @classmethod
    def now(cls) -> "Since":
        """Remember the newest rows."""
        order = Order.objects.order_by("-pk").values_list("pk", flat=True).first()
        commitment = Commitment.objects.order_by("-pk").values_list("pk", flat=True).first()
        return cls(order or 0, commitment or 0)

    def orders(self) -> list[Order]:
        """Return the orders of this demo, oldest first."""
        return list(Order.objects.filter(pk__gt=self.order).select_related("user").order_by("pk"))

    def commitments(self) -> list[Commitment]:
        """Return the commitments of this demo, oldest first."""
        return list(Commitment.objects.filter(pk__gt=self.commitment).select_related("user").order_by("pk"))

    def is_settled(self) -> bool:
        """True when nothing of this demo waits to be sent any more."""
        return not Commitment.objects.filter(pk__gt=self.commitment, status__in=UNDER_WAY).exists()


def bookings_of(commitment: Commitment, ledger: Iterable[Booking]) -> list[Booking]:
    """Return the sandbox's bookings of a commitment; its code stands at the end of the description."""
    return [line for line in ledger if commitment.trace_key in line["promotion_goal_description"]]


def rows(since: Since, ledger: Sequence[Booking]) -> list[tuple[str, ...]]:
    """Return the table's rows: each order with its points, and each sign-up."""
    commitments = since.commitments()
    by_order = {row.reference: row for row in commitments if row.goal == "purchase"}
    found = [
        _row(f"{row.goal}", row.user, row.net_value, "", row, ledger)
        for row in commitments
        if row.goal != "purchase"
    ]
    for order in since.orders():
        row = by_order.get(order.number)
        found.append(
            _row(order.number, order.user, order.kept_total, order.get_status_display(), row, ledger)
        )
    return found[-MOST_ROWS:]


def _row(
    name: str,
    user: User | None,
    value: Decimal,
    payment: str,
    commitment: Commitment | None,
    ledger: Sequence[Booking],
) -> tuple[str, ...]:
    customer = user.get_username() if user else "a guest"
    if commitment is None:
        return (name, customer, f"{value:.2f}", payment, "", "", "")
    units = "" if commitment.loyalty_units is None else str(commitment.loyalty_units)
    booked = "+".join(str(line["loyalty_units"]) for line in bookings_of(commitment, ledger))
    return (name, customer, f"{value:.2f}", payment, str(commitment.get_status_display()), units, booked)


def differences(since: Since, ledger: Sequence[Booking]) -> list[str]:
    """Return every sentence that says where the shop and the sandbox's ledger do not agree."""
    commitments = since.commitments()
    found: list[str] = []
    matched = 0
    for row in commitments:
        bookings = bookings_of(row, ledger)
        matched += len(bookings)
        name = f"{row.goal} {row.reference}"
        if row.status == CommitmentStatus.ISSUED:
            if len(bookings) != 1:
                found.append(f"{name} is sent, and the ledger has it {len(bookings)} times.")
            elif bookings[0]["loyalty_units"] != row.loyalty_units:
                found.append(
                    f"{name}: {row.loyalty_units} points here, {bookings[0]['loyalty_units']} there."
                )
            elif Decimal(bookings[0]["transaction_value"]) != row.transaction_value:
                found.append(
                    f"{name}: {row.transaction_value} here, {bookings[0]['transaction_value']} there."
                )
        elif bookings:
            found.append(f"{name} is {row.status}, yet the ledger has it.")
        elif row.user is not None:
            found.append(f"{name} of a member is {row.status}: {row.reason}")
    if matched != len(ledger):
        found.append(f"The ledger has {len(ledger) - matched} bookings that the shop does not know.")
    recorded = Counter(row.reference for row in commitments if row.goal == "purchase")
    for order in since.orders():
        wanted = 0 if order.status == OrderStatus.PLACED else 1
        if recorded[order.number] != wanted:
            found.append(f"Order {order.number} ({order.status}) is recorded {recorded[order.number]} times.")
    if not ledger:
        found.append("The ledger is empty.")
    return found


class LiveTable:
    """A table that stays in its place on a terminal; elsewhere each change is one more line."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, ...]] = []
        self.height = 0

    def show(self, table: list[tuple[str, ...]]) -> None:
        """Show the rows as they are now."""
        if table == self.shown:
            return
        if sys.stdout.isatty():
            if self.height:
                # Up to the table's head, then clear to the end of the screen.
                sys.stdout.write(f"\x1b[{self.height}A\x1b[J")
            self.print(table)
            self.height = len(table) + 2
        else:
            if not self.shown:
                print(line(HEAD))
            for row in table:
                if row not in self.shown:
                    print(line(row))
        sys.stdout.flush()
        self.shown = list(table)

    def print(self, table: list[tuple[str, ...]]) -> None:
        """Print the whole table once."""
        print(line(HEAD))
        print("  ".join("-" * width for width in WIDTHS))
        for row in table:
            print(line(row))


def line(cells: Sequence[str]) -> str:
    """Lay out one row."""
    laid_out = (
        cell.rjust(width) if index in RIGHT else cell[:width].ljust(width)
        for index, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    )
    return "  ".join(laid_out).rstrip()
