"""Takes due commitments for a delivery run and readies their calls. Database only; nothing is sent here."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q

from . import gate
from .client import clock
from .conf import conf
from .events import format_amount
from .models import Campaign, Commitment, KoomaloomaUser
from .policy import Policy
from .sender import Call, Customer
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

WORTHLESS = "Worth nothing any more: withdrawn or refunded before it was sent."
NO_CUSTOMER = "The customer was deleted before it was sent."


class _Due(NamedTuple):
    """What a call is made of. Whole models are only read where a policy asks for them: they cost more."""

    pk: int
    user_id: Any
    email_hash: str
    session_id: str
    campaign_id: int | None
    net_value: Decimal
    currency: str
    description: str
    category: str
    tries: int
    withdrawn_at: dt.datetime | None


class Leasing:
    """Leases for one delivery run. Calls of one customer share him, so that he is created once.

    Args:
        using: The database alias of the commitments.
        policy: The shop's policy, asked before each sending.
        now: The run's clock: the database's time.
    """

    def __init__(self, using: str, policy: Policy, now: Callable[[], dt.datetime]) -> None:
        self._using = using
        self._policy = policy
        self._now = now
        self._rows = Commitment.objects.using(using)
        self._users = KoomaloomaUser.objects.using(using)
        self._campaign_ids: dict[int | None, str] = {}
        # Kept by the calls that are under way; after their record the table knows as much.
        self._customers: WeakValueDictionary[int, Customer] = WeakValueDictionary()
        self.cancelled = 0

    def lease(self, room: int) -> tuple[list[Call], int]:
        """Take at most ``room`` due rows and write their attempts, in one durable transaction.

        Only when this has returned may a byte leave.

        Returns:
            The calls to make, and how many due rows were found (some may have been cancelled instead).
        """
        lease, now, seconds = uuid.uuid4(), self._now(), conf.lease
        send_before = clock() + seconds - min(1.0, seconds / 10)
        with transaction.atomic(using=self._using, durable=True):
            due = self._rows.lock_due(now, room, gate.opened(), _Due._fields)
            found = [_Due(*values) for values in due]
            rows = self._choose(found, now)
            customers = self.find_customers(rows) if rows else {}
            rows = [row for row in rows if row.pk in customers]
            if rows:
                self._name_campaigns(rows)
                until = now + dt.timedelta(seconds=seconds)
                pks = [row.pk for row in rows]
                if self._rows.lease(pks, lease, until, now) != len(rows):
                    taken = set(self._rows.filter(lease=lease).values_list("pk", flat=True))
                    rows = [row for row in rows if row.pk in taken]
        calls = [
            Call(
                pk=row.pk,
                number=row.tries + 1,
                lease=lease,
                customer=customers[row.pk],
                session_id=row.session_id,
                campaign_id=self._campaign_ids[row.campaign_id],
                value=format_amount(row.net_value, row.currency),
                description=row.description,
                category=row.category,
                send_before=send_before,
            )
            for row in rows
        ]
        return calls, len(found)

    def find_customers(self, rows: Sequence[_Due | Commitment]) -> dict[int, Customer]:
        """Return the customer of each row by the row's primary key, made where it is his first row.

        Rows whose customer is gone are cancelled and left out.
        """
        users = {row.user_id for row in rows if row.user_id is not None}
        hashes = {row.email_hash for row in rows if row.user_id is None}
        known = self._read_customers(users, hashes)
        new_users = {user for user in users if ("user", user) not in known}
        new_hashes = {text for text in hashes if ("guest", text) not in known}
        if new_users or new_hashes:
            alive = get_user_model()._default_manager.using(self._using).filter(pk__in=new_users)
            fresh = [KoomaloomaUser(user_id=pk) for pk in alive.values_list("pk", flat=True)]
            fresh += [KoomaloomaUser(email_hash=text) for text in new_hashes]
            # Another run may make the same customer at this moment; whoever came first is read back.
            self._users.bulk_create(fresh, ignore_conflicts=True)
            known |= self._read_customers(new_users, new_hashes)
        found = {}
        for row in rows:
            customer = known.get(_customer_key(row.user_id, row.email_hash))
            if customer is None:
                self._cancel(row.pk, NO_CUSTOMER, self._now())
            else:
                found[row.pk] = self._customers.setdefault(customer.pk, customer)
        return found

    def _read_customers(self, users: Iterable[Any], hashes: Iterable[str]) -> dict[tuple[str, Any], Customer]:
        rows = self._users.filter(Q(user_id__in=users) | Q(email_hash__in=hashes)).values_list(
            "pk",
            "user_id",
            "email_hash",
            "partner_user_id",
            "remote_id",
            "registered_session_id",
            "registered_at",
        )
        return {
            _customer_key(user_id, email_hash): Customer(
                pk=pk,
                partner_user_id=partner_user_id,
                remote_id=remote_id,
                session_id=session_id,
                is_registered=registered_at is not None and remote_id != "",
            )
            for pk, user_id, email_hash, partner_user_id, remote_id, session_id, registered_at in rows
        }

    def _name_campaigns(self, rows: Iterable[_Due]) -> None:
        wanted = {row.campaign_id for row in rows} - self._campaign_ids.keys()
        if wanted:
            campaigns = Campaign.objects.using(self._using).filter(pk__in=[pk for pk in wanted if pk])
            self._campaign_ids.update(campaigns.values_list("pk", "remote_id"))

    def _choose(self, found: Collection[_Due], now: dt.datetime) -> list[_Due]:
        """Return what is to be sent; cancel or put off the others."""
        asks = type(self._policy).refusal is not Policy.refusal
        models = self._rows.in_bulk([row.pk for row in found if asks or not row.net_value])
        chosen = []
        for row in found:
            reason: str | None = ""
            if row.withdrawn_at is not None or (not row.net_value and not models[row.pk].is_fixed):
                reason = WORTHLESS
            elif row.user_id is None and not row.email_hash:
                reason = NO_CUSTOMER
            elif asks:
                reason = self._ask_policy(models[row.pk], now)
            if reason:
                self._cancel(row.pk, reason, now)
            elif reason is not None:
                chosen.append(row)
        return chosen

    def _ask_policy(self, row: Commitment, now: dt.datetime) -> str | None:
        """Return the policy's refusal or ``""``.

        ``None`` when it failed and the row was put off for an hour.
        """
        try:
            with transaction.atomic(using=self._using):
                return self._policy.refusal(row)
        except Exception:  # the shop's code: one row must not stop all others
            logger.exception(
                "KOOMALOOMA_POLICY: refusal() failed for commitment %s; again in an hour.", row.pk
            )
        self._rows.filter(pk=row.pk, status=CommitmentStatus.QUEUED).update(
            due_at=now + dt.timedelta(hours=1),
            reason="The shop's policy failed; see the log.",
            updated_at=now,
        )
        return None

    def _cancel(self, pk: int, reason: str, now: dt.datetime) -> None:
        self.cancelled += self._rows.filter(pk=pk, status=CommitmentStatus.QUEUED).update(
            status=CommitmentStatus.CANCELLED, due_at=None, reason=reason, updated_at=now
        )


def _customer_key(user_id: Any, email_hash: str | None) -> tuple[str, Any]:
    return ("guest", email_hash) if user_id is None else ("user", user_id)
