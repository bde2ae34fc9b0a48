"""The shop's own rules in one class of small methods to override. Asks no network and writes nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from django.utils.module_loading import import_string

from .conf import conf
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from .events import EarningEvent
    from .models import Campaign, Commitment


class Policy:
    """How this shop rewards. Override what differs in a subclass, and name that in ``KOOMALOOMA_POLICY``.

    The first five methods run inside the checkout, in the order's transaction: keep them free of look-ups.
    What needs the database (consent, customer groups, a first order) belongs into :meth:`refusal`, which
    runs when the points are about to be sent.
    """

    def net_value(self, event: EarningEvent) -> Decimal:
        """Return what of the event earns points, in its currency: all of it.

        Override to leave out shipping or tax.
        """
        return event.value

    def exclusion(self, event: EarningEvent) -> str:
        """Return why the event earns nothing, in a sentence for the staff, or ``""``."""
        return ""

    def convert(self, value: Decimal, currency: str, to: str) -> Decimal | None:
        """Return ``value`` in the currency ``to``, or ``None`` where the shop does not convert (R12)."""
        return value if currency == to else None

    def description(self, event: EarningEvent, campaign: Campaign) -> str:
        """Return what the customer reads at koomalooma; our code for support is put behind it."""
        template = event.description or campaign.description_template
        if not template:
            template = "Order {reference}" if event.goal == "purchase" else "{goal} {reference}"
        return template.replace("{reference}", event.reference).replace("{goal}", event.goal.capitalize())

    def category(self, event: EarningEvent, campaign: Campaign) -> str:
        """Return the category sent to koomalooma: the campaign's, or the goal."""
        return campaign.category or event.goal

    def refusal(self, commitment: Commitment) -> str:
        """Return why the points must not be sent after all, or ``""``.

        Runs in the worker, before each sending.
        """
        return ""


def get_policy() -> Policy:
    """Return the shop's policy.

    Raises:
        ConfigurationError: ``KOOMALOOMA_POLICY`` cannot be imported or is no subclass of :class:`Policy`.
    """
    path = conf.policy
    try:
        policy = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"KOOMALOOMA_POLICY is {path!r}: {error}") from error
    if not (isinstance(policy, type) and issubclass(policy, Policy)):
        raise ConfigurationError(f"KOOMALOOMA_POLICY is {path!r}: give a subclass of {__name__}.Policy.")
    return policy()
