"""Takes due commitments for a delivery run and readies their calls. Database only; nothing is sent here."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
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
NO_CAMPAIGN = "Its campaign was deleted before it was sent."
NO_CUSTOMER = "The customer was deleted before it was sent."
_PROBED = 50


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


_Row = TypeVar("_Row", _Due, Commitment)


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
        refusals = self._ask_policy(now, room)
        send_before = clock() + seconds - min(1.0, seconds / 10)
        with transaction.atomic(using=self._using, durable=True):
            due = self._rows.lock_due(now, room, gate.opened(), _Due._fields)
            found = [_Due(*values) for values in due]
            rows = self._choose(found, refusals, now)
            customers = self.find_customers(rows) if rows else {}
            rows = self._name_campaigns([row for row in rows if row.pk in customers], now)
            if rows:
                until = now + dt.timedelta(seconds=seconds)
                pks = [row.pk for row in rows]
                if self._rows.lease(pks, lease, until, now) != len(rows):
                    taken = set(self._rows.filter(lease=lease).values_list("pk", flat=True))
                    rows = [row for row in rows if row.pk in taken]
            # Before the commit: an exception here must not leave rows leased that nobody sends.
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

    def next_customer(self) -> tuple[Commitment, Customer] | None:
        """Return a due row that may be sent, and its customer, for a probe: the one that was tried least.

        So one customer who cannot be created does not keep the queue shut for the others.
        """
        now = self._now()
        refusals = self._ask_policy(now, _PROBED)
        for row in sorted(self._rows.due(now)[:_PROBED], key=lambda row: row.tries):
            with transaction.atomic(using=self._using):
                if self._choose([row], refusals, now) and (
                    customer := self.find_customers([row]).get(row.pk)
                ):
                    return row, customer
        return None

    def find_customers(self, rows: Sequence[_Due | Commitment]) -> dict[int, Customer]:
        """Return the customer of each row by the row's primary key, made where it is his first row.

        Rows whose customer is gone are cancelled and left out.
        """
        users = {row.user_id for row in rows if row.user_id is not None}
        hashes = {row.email_hash for row in rows if row.user_id is None}
        known = self._read_customers(users, hashes)
        new_users = {user for user in users if ("user", user) not in known}
        new_hashes = {text for text in hashes if ("guest", text) not in known}
        alive: set[Any] = set()
        if new_users or new_hashes:
            users_there = get_user_model()._base_manager.using(self._using).filter(pk__in=new_users)
            alive = set(users_there.values_list("pk", flat=True))
            # In one order in all runs, so that two who make the same customers do not deadlock.
            fresh = [KoomaloomaUser(user_id=pk) for pk in sorted(alive)]
            fresh += [KoomaloomaUser(email_hash=text) for text in sorted(new_hashes)]
            # Another run may make the same customer at this moment; whoever came first is read back.
            self._users.bulk_create(fresh, ignore_conflicts=True)
            known |= self._read_customers(new_users, new_hashes)
        found = {}
        for row in rows:
            customer = known.get(_customer_key(row.user_id, row.email_hash))
            if customer is not None:
                found[row.pk] = self._customers.setdefault(customer.pk, customer)
            elif row.user_id in new_users - alive:
                self._cancel(row.pk, NO_CUSTOMER, self._now())
            # Else another run made him just now, unseen by this transaction: the next lease finds him.
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

    def _name_campaigns(self, rows: Sequence[_Due], now: dt.datetime) -> list[_Due]:
        """Learn the campaigns' ids at koomalooma; cancel what belongs to one that was deleted meanwhile."""
        wanted = {row.campaign_id for row in rows} - self._campaign_ids.keys()
        if wanted:
            campaigns = Campaign.objects.using(self._using).filter(pk__in=[pk for pk in wanted if pk])
            self._campaign_ids.update(campaigns.values_list("pk", "remote_id"))
        for row in rows:
            if row.campaign_id not in self._campaign_ids:
                self._cancel(row.pk, NO_CAMPAIGN, now)
        return [row for row in rows if row.campaign_id in self._campaign_ids]

    def _choose(
        self, found: Collection[_Row], refusals: Mapping[int, str] | None, now: dt.datetime
    ) -> list[_Row]:
        """Return what is to be sent; cancel what is not. What the policy was not asked about waits."""
        models = self._rows.in_bulk([row.pk for row in found if not row.net_value])
        chosen = []
        for row in found:
            reason = "" if refusals is None else refusals.get(row.pk, "")
            if row.withdrawn_at is not None or (not row.net_value and not models[row.pk].is_fixed):
                reason = WORTHLESS
            elif row.user_id is None and not row.email_hash:
                reason = NO_CUSTOMER
            if reason:
                self._cancel(row.pk, reason, now)
            elif refusals is None or row.pk in refusals:
                chosen.append(row)
        return chosen

    def _ask_policy(self, now: dt.datetime, room: int) -> dict[int, str] | None:
        """Return the policy's refusal, or ``""``, for the rows that are due next.

        Asked before they are locked: a slow policy must hold up no checkout that cancels or amends. A row for
        which it fails is put off for an hour.

        Returns:
            ``None`` where the shop's policy has nothing to say.
        """
        if type(self._policy).refusal is Policy.refusal:
            return None
        refusals = {}
        for row in self._rows.due(now)[:room]:
            if row.withdrawn_at is not None or (row.user_id is None and not row.email_hash):
                continue  # cancelled anyway
            try:
                with transaction.atomic(using=self._using):
                    refusal = self._policy.refusal(row) or ""
                if not isinstance(refusal, str):
                    raise TypeError(f"refusal() gave a {type(refusal).__name__}: give a sentence, or ''")
                refusals[row.pk] = refusal
            except Exception:  # the shop's code: one row must not stop all others
                logger.exception(
                    "KOOMALOOMA_POLICY: refusal() failed for commitment %s; again in an hour.", row.pk
                )
                self._rows.filter(pk=row.pk, status=CommitmentStatus.QUEUED).update(
                    due_at=now + dt.timedelta(hours=1),
                    reason="The shop's policy failed; see the log.",
                    updated_at=now,
                )
        return refusals

    def _cancel(self, pk: int, reason: str, now: dt.datetime) -> None:
        self.cancelled += self._rows.filter(pk=pk, status=CommitmentStatus.QUEUED).update(
            status=CommitmentStatus.CANCELLED, due_at=None, reason=reason, updated_at=now
        )


def _customer_key(user_id: Any, email_hash: str | None) -> tuple[str, Any]:
    return ("guest", email_hash) if user_id is None else ("user", user_id)
