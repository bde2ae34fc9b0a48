"""Where the shop meets koomalooma: what it tells about an order or an account, and what it tells a customer
about the points."""

from dataclasses import dataclass
from decimal import Decimal

from django.contrib.auth.models import User

from django_koomalooma.events import EarningEvent
from django_koomalooma.models import Commitment
from django_koomalooma.statuses import CommitmentStatus
from shop.models import Order

PURCHASE = "purchase"
SIGN_UP = "signup"


def purchase_event(order: Order, *, session_id: str = "") -> EarningEvent:
    """Describe a paid order."""
    return EarningEvent(
        goal=PURCHASE,
        reference=order.number,
        value=order.total,
        currency=order.currency,
        user=order.user,
        email=order.email,
        occurred_at=order.paid_at,
        source=order,
        session_id=session_id,
    )


def sign_up_event(user: User, *, session_id: str = "") -> EarningEvent:
    """Describe a new account; the campaign says what it is worth."""
    return EarningEvent(
        goal=SIGN_UP,
        reference=str(user.pk),
        value=Decimal("0.00"),
        currency="EUR",
        user=user,
        email=user.email,
        occurred_at=user.date_joined,
        source=user,
        session_id=session_id,
    )


@dataclass(frozen=True)
class Points:
    """What a customer reads about the points of one order."""

    tone: str
    text: str


ON_THEIR_WAY = Points("waiting", "points on their way")
NONE = Points("none", "no points")
BEING_CHECKED = Points("waiting", "points are being checked")


def points_of(order: Order) -> Points:
    """Say in a customer's words where the points of the order are."""
    commitment = Commitment.objects.filter(goal=PURCHASE, reference=order.number).first()
    if commitment is None:
        return NONE
    match commitment.status:
        case CommitmentStatus.ISSUED if commitment.loyalty_units is not None:
            return Points("issued", f"{commitment.loyalty_units:,} points")
        case CommitmentStatus.ISSUED:
            return Points("issued", "points sent")
        case CommitmentStatus.QUEUED | CommitmentStatus.SENDING:
            return ON_THEIR_WAY
        case CommitmentStatus.CANCELLED | CommitmentStatus.SKIPPED:
            return NONE
        case _:
            return BEING_CHECKED
