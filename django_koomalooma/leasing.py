"""Takes due commitments for a delivery run and readies their calls. Database only; nothing is sent here."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q

from . import gate
from .client import clock
from .conf import conf
from .events import format_amount
from .models import Campaign, Commitment, DeliveryAttempt, KoomaloomaUser
from .policy import Policy
from .sender import Call, Customer
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

WORTHLESS = "Worth nothing any more: withdrawn or refunded before it was sent."
NO_CUSTOMER = "The customer was deleted before it was sent."


class Leasing:
    """Leases for one delivery run. Keeps its customers, so that each is created once, and campaign ids.

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
        self._customers: dict[int, Customer] = {}
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
            found = self._rows.lock_due(now, room, gate.opened())
            rows = [row for row in found if not self._leave_out(row, now)]
            customers = self.find_customers(rows) if rows else {}
            rows = [row for row in rows if row.pk in customers]
            if rows:
                self._name_campaigns(rows)
                until = now + dt.timedelta(seconds=seconds)
                if self._rows.lease(rows, lease, until, now) != len(rows):
                    taken = set(self._rows.filter(lease=lease).values_list("pk", flat=True))
                    rows = [row for row in rows if row.pk in taken]
                DeliveryAttempt.objects.using(self._using).bulk_create(
                    DeliveryAttempt(commitment=row, number=row.tries + 1, lease=lease, started_at=now)
                    for row in rows
                )
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

    def find_customers(self, rows: Sequence[Commitment]) -> dict[int, Customer]:
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
                self._cancel(row, NO_CUSTOMER, self._now())
            else:
                found[row.pk] = self._customers.setdefault(customer.pk, customer)
        return found

    def _read_customers(self, users: Iterable[Any], hashes: Iterable[str]) -> dict[tuple[str, Any], Customer]:
        return {
            _customer_key(row.user_id, row.email_hash): Customer(
                pk=row.pk,
                partner_user_id=row.partner_user_id,
                remote_id=row.remote_id,
                session_id=row.registered_session_id,
                is_registered=row.registered_at is not None and row.remote_id != "",
            )
            for row in self._users.filter(Q(user_id__in=users) | Q(email_hash__in=hashes))
        }

    def _name_campaigns(self, rows: Sequence[Commitment]) -> None:
        wanted = {row.campaign_id for row in rows} - self._campaign_ids.keys()
        if wanted:
            campaigns = Campaign.objects.using(self._using).filter(pk__in=[pk for pk in wanted if pk])
            self._campaign_ids.update(campaigns.values_list("pk", "remote_id"))

    def _leave_out(self, row: Commitment, now: dt.datetime) -> bool:
        """Cancel what must not be sent after all; tell whether the row is left out of this lease."""
        if row.withdrawn_at is not None or (not row.net_value and not row.is_fixed):
            reason = WORTHLESS
        elif row.user_id is None and not row.email_hash:
            reason = NO_CUSTOMER
        else:
            asked = self._ask_policy(row, now)
            if asked is None:
                return True
            reason = asked
        if reason:
            self._cancel(row, reason, now)
        return bool(reason)

    def _ask_policy(self, row: Commitment, now: dt.datetime) -> str | None:
        """Return the policy's refusal or ``""``.

        ``None`` when it failed and the row was put off for an hour.
        """
        if type(self._policy).refusal is Policy.refusal:
            return ""
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

    def _cancel(self, row: Commitment, reason: str, now: dt.datetime) -> None:
        self.cancelled += self._rows.filter(pk=row.pk, status=CommitmentStatus.QUEUED).update(
            status=CommitmentStatus.CANCELLED, due_at=None, reason=reason, updated_at=now
        )


def _customer_key(user_id: Any, email_hash: str | None) -> tuple[str, Any]:
    return ("guest", email_hash) if user_id is None else ("user", user_id)
