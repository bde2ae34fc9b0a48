"""Many rows at once: which campaign applies, what is due, what was abandoned, and the guarded writes."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, cast

from django.db import connections, models
from django.db.models import Exists, F, Q, Value
from django.db.models.functions import Concat
from django.utils import timezone

from .statuses import CommitmentStatus

if TYPE_CHECKING:
    from .models import Campaign, Commitment, DeliveryAttempt, Gate  # noqa: F401 - for the generics' strings

_NOW_SQL = {
    "postgresql": "SELECT clock_timestamp() AT TIME ZONE 'UTC'",
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}


def database_now(using: str) -> dt.datetime:
    """Return the database's clock, which all workers share, as Django keeps times (aware with ``USE_TZ``)."""
    connection = connections[using]
    sql = _NOW_SQL.get(connection.vendor)
    if sql is None:
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(sql)
        value = cursor.fetchone()[0]
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    value = value.replace(tzinfo=dt.UTC)
    return value if timezone.is_aware(timezone.now()) else timezone.make_naive(value)


def guarded_update(
    using: str,
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    keys: Sequence[str] = ("id",),
    statuses: Sequence[str] = (),
) -> int:
    """Write many rows in one round: ``SET columns WHERE keys AND status IN statuses``.

    PostgreSQL gets one UPDATE over a set of records, sent as JSON. The others get one ``executemany``. The
    ORM's ``bulk_update`` was measured at five times the cost.

    Args:
        rows: For each row the values of ``columns``, then those of ``keys``.

    Returns:
        How many rows were written; fewer than given where the guard held some back.
    """
    if not rows:
        return 0
    connection = connections[using]
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    fields: list[models.Field[Any, Any]] = [
        cast("models.Field[Any, Any]", model._meta.get_field(name)) for name in (*columns, *keys)
    ]
    names = [quote(str(field.column)) for field in fields]
    written, matched = names[: len(columns)], names[len(columns) :]
    guard = f" AND {table}.status IN ({_listed(statuses)})" if statuses else ""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Types without lengths: a cast would cut what is too long, an assignment refuses it.
            types = [str(field.db_type(connection)).partition("(")[0] for field in fields]
            shape = ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))
            sql = f"UPDATE {table} SET " + ", ".join(f"{name} = new.{name}" for name in written)  # noqa: S608 - names of our own model
            sql += f" FROM json_to_recordset(%s) AS new ({shape}) WHERE "
            sql += " AND ".join(f"{table}.{name} = new.{name}" for name in matched) + guard
            cursor.execute(sql, [_as_records([str(field.column) for field in fields], rows)])
        else:
            sql = f"UPDATE {table} SET " + ", ".join(f"{name} = %s" for name in written)  # noqa: S608 - names of our own model
            sql += " WHERE " + " AND ".join(f"{name} = %s" for name in matched) + guard
            cursor.executemany(
                sql,
                [
                    [
                        field.get_db_prep_save(value, connection)
                        for field, value in zip(fields, row, strict=True)
                    ]
                    for row in rows
                ],
            )
        return int(cursor.rowcount)


def _listed(statuses: Sequence[str]) -> str:
    return ", ".join(f"'{CommitmentStatus(status).value}'" for status in statuses)


def _as_records(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as a JSON list of objects; what JSON does not know (times, UUIDs, decimals) as text."""
    return json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str)


class CampaignQuerySet(models.QuerySet["Campaign"]):
    """Campaigns, and which of them applies."""

    def active(self) -> Self:
        """Return those that are switched on, whatever their dates."""
        return self.filter(is_active=True)

    def running(self, now: dt.datetime) -> Self:
        """Return those that reward what happens at ``now``."""
        return self.active().filter(Q(ends_at__isnull=True) | Q(ends_at__gt=now), starts_at__lte=now)

    def overlapping(self, campaign: Campaign) -> Self:
        """Return the other active campaigns of the same goal, currency and site at the same time."""
        rivals = self.active().filter(goal=campaign.goal, currency=campaign.currency, site=campaign.site)
        rivals = rivals.filter(Q(ends_at__isnull=True) | Q(ends_at__gt=campaign.starts_at))
        if campaign.ends_at:
            rivals = rivals.filter(starts_at__lt=campaign.ends_at)
        return rivals.exclude(pk=campaign.pk)


class CommitmentQuerySet(models.QuerySet["Commitment"]):
    """Commitments by what is to be done with them."""

    def open(self) -> Self:
        """Return what is owed and not finished: waiting, or being sent."""
        return self.filter(due_at__isnull=False)

    def due(self, now: dt.datetime) -> Self:
        """Return what should be sent at ``now``, oldest first."""
        return self._by_due_at(now, CommitmentStatus.SENDING)

    def abandoned(self, now: dt.datetime) -> Self:
        """Return what a delivery run leased and did not record before the lease ended."""
        return self._by_due_at(now, CommitmentStatus.QUEUED)

    def _by_due_at(self, now: dt.datetime, other: CommitmentStatus) -> Self:
        # What has a due_at is queued or being sent (a constraint holds it), so one is told by not being the
        # other: PostgreSQL then expects to find the first rows at once and reads no more of a backlog than it
        # leases. The status as an expression: else SQLite takes the index on it, and sorts the whole backlog.
        rows = self.alias(state=Concat(F("status"), Value("")))
        return rows.filter(due_at__lte=now).exclude(state=other).order_by("due_at")

    def undecided(self) -> Self:
        """Return what waits for a person: unclear or refused, oldest first."""
        return self.filter(status__in=[CommitmentStatus.IN_DOUBT, CommitmentStatus.REFUSED]).order_by("id")

    def lock_due(
        self, now: dt.datetime, limit: int, gate: models.QuerySet[Gate], fields: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """Return ``fields`` of at most ``limit`` due rows, while ``gate`` has a row.

        Locks them where the database can; must run in a transaction. Other runs' locked rows are skipped,
        never waited for.
        """
        features = connections[self.db].features
        rows = self.due(now).filter(Exists(gate))
        if features.has_select_for_update:
            rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        return list(rows.values_list(*fields)[:limit])

    def lease(self, pks: Sequence[int], lease: uuid.UUID, until: dt.datetime, now: dt.datetime) -> int:
        """Take rows by compare-and-swap, only those still waiting, and write their attempts.

        Freezes the value sent.

        Returns:
            How many were taken.
        """
        taken = self.filter(pk__in=pks, status=CommitmentStatus.QUEUED).update(
            status=CommitmentStatus.SENDING,
            lease=lease,
            due_at=until,
            tries=F("tries") + 1,
            transaction_value=F("net_value"),
            reason="",
            updated_at=now,
        )
        if taken:
            self._write_attempts(pks, lease, now)
        return taken

    def _write_attempts(self, pks: Sequence[int], lease: uuid.UUID, now: dt.datetime) -> None:
        # From the rows themselves, so that none is written without its lease; ``bulk_create`` costs more.
        connection = connections[self.db]
        quote = connection.ops.quote_name
        fields = {
            field.name: field.get_db_prep_save(value, connection)
            for field, value in (
                (self.model._meta.get_field("lease"), lease),
                (self.model._meta.get_field("updated_at"), now),
            )
        }
        attempts = quote(self.model._meta.get_field("attempts").related_model._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {attempts}"  # noqa: S608 - names of our own models, and placeholders
                " (commitment_id, number, lease, started_at, outcome, request, error, reply)"
                " SELECT id, tries, lease, %s, '', '', '', ''"
                f" FROM {quote(self.model._meta.db_table)}"
                f" WHERE lease = %s AND id IN ({', '.join(['%s'] * len(pks))})",
                [fields["updated_at"], fields["lease"], *pks],
            )

    def issued_units(self, since: dt.datetime) -> int:
        """Return the points issued since then; answers without points count 0."""
        units = self.filter(issued_at__gte=since).aggregate(total=models.Sum("loyalty_units"))["total"]
        return int(units or 0)

    def over_issued(self) -> Self:
        """Return what was issued too much: worth less now than the value that was sent."""
        # By the condition of the index koomalooma_over_issued. The status once more, as an expression: else
        # PostgreSQL expects a third of all rows, and reads the table until it has a page of them.
        rows = self.alias(state=Concat(F("status"), Value("")))
        rows = rows.filter(status=CommitmentStatus.ISSUED, transaction_value__gt=F("net_value"))
        return rows.filter(state=CommitmentStatus.ISSUED)

    def over_issued_value(self) -> dict[str, Decimal]:
        """Return the sum issued too much, by currency."""
        sums = self.over_issued().order_by().values("currency")
        return {
            row["currency"]: row["total"]
            for row in sums.annotate(total=models.Sum(F("transaction_value") - F("net_value")))
        }
