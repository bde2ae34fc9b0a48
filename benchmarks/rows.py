"""Fills a database: customers, a campaign, and commitments in numbers, without the shop in between."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
from collections.abc import Iterator
from typing import Any

from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from django_koomalooma import gate
from django_koomalooma.models import Campaign, Commitment, DeliveryAttempt, KoomaloomaUser

#: What each kind of database does alike, for the numbers 1 to n: text of a number, padded or not.
_SERIES = {
    "postgresql": "generate_series({first}, {last}) AS s(n)",
    "sqlite": "(WITH RECURSIVE c(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM c WHERE n < {last})"
    " SELECT n FROM c) AS s",
}
_HEX = {"postgresql": "md5('{salt}' || n)", "sqlite": "lower(hex(randomblob(16)))"}
_LEASE = {"postgresql": "md5('l' || n)::uuid", "sqlite": "lower(hex(randomblob(16)))"}


def prepare(customers: int = 0) -> None:
    """Make the tables, an open gate, one campaign, and customers whom koomalooma knows."""
    with contextlib.redirect_stdout(io.StringIO()):
        call_command("migrate", verbosity=0)
        call_command("migrate", run_syncdb=True, verbosity=0)  # the shop's own tables refer to the users
    gate.read()
    Campaign.objects.create(
        name="Purchases", remote_id="campaign-1", goal="purchase", currency="EUR", starts_at=_past(3650)
    )
    grow_customers(customers)


def grow_customers(total: int) -> None:
    """Add customers until there are so many."""
    have = KoomaloomaUser.objects.count()
    if have >= total:
        return
    series = _SERIES[connection.vendor].format(first=have + 1, last=total)
    name = _HEX[connection.vendor].format(salt="c")
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO auth_user (id, username, first_name, last_name, email, password, is_superuser,"
            " is_staff, is_active, date_joined) SELECT n, 'shopper' || n, '', '',"
            " 'shopper' || n || '@example.com', '',"
            f" %s, %s, %s, %s FROM {series}",
            [False, False, True, now],
        )
        cursor.execute(
            "INSERT INTO koomalooma_koomaloomauser (user_id, partner_user_id, remote_id,"
            " registered_session_id, registered_at, created_at)"
            f" SELECT n, {name}, 'remote-' || n, 'session', %s, %s FROM {series}",
            [now, now],
        )
        _carry_on(cursor, "auth_user")


def _carry_on(cursor: Any, table: str) -> None:
    """Let PostgreSQL number on from the rows that were put in with numbers."""
    if connection.vendor == "postgresql":
        cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")


def queue(count: int, *, customers: int, hours_ago: int = 24) -> None:
    """Put commitments into the queue, all due, one after the other, spread over the customers."""
    _insert(count, customers, "queued", hours_ago)


def finish(count: int, *, customers: int) -> None:
    """Add commitments that are over: nine in ten issued, the others spread over all that staff may see."""
    _insert(count, customers, "issued", 24)


def _insert(count: int, customers: int, status: str, hours_ago: int) -> None:
    campaign = Campaign.objects.get().pk
    first = (Commitment.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1
    vendor = connection.vendor
    series = _SERIES[vendor].format(first=first, last=first + count - 1)
    key = f"{_HEX[vendor].format(salt='a')} || {_HEX[vendor].format(salt='b')}"
    trace = f"upper(substr({_HEX[vendor].format(salt='t')}, 1, 12))"
    is_over = status != "queued"
    if is_over:
        status_sql = (
            "CASE WHEN n % 10 > 0 THEN 'issued' WHEN n % 100 = 10 THEN 'refused' WHEN n % 100 = 20 THEN"
            " 'in_doubt' WHEN n % 100 = 30 THEN 'skipped' ELSE 'cancelled' END"
        )
        goal_sql = "CASE WHEN n % 50 = 7 THEN 'signup' WHEN n % 50 = 8 THEN 'review' ELSE 'purchase' END"
    else:
        status_sql, goal_sql = "'queued'", "'purchase'"
    start = _past(hours_ago / 24) if not is_over else _past(365)
    if vendor == "postgresql":
        at = f"%s + (n - {first}) * interval '1 millisecond'"
        if is_over:
            at = f"%s + (n - {first}) * interval '360 days' / {count}"
    else:
        step = 360 * 86400 / count if is_over else 0.001
        at = f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', %s, ((n - {first}) * {step}) || ' seconds')"
    issued = "CASE WHEN n % 10 > 0 THEN {} END" if is_over else "NULL"
    reply = '\'{"id": "x", "loyalty_units": 100, "confirmation_status": "pending"}\''
    if vendor == "postgresql":
        reply += "::jsonb"
    columns = {
        "user_id": f"1 + n % {customers}",
        "campaign_id": str(campaign),
        "koomalooma_user_id": f"1 + n % {customers}" if is_over else "NULL",
        "source_type_id": "NULL",
        "source_id": "''",
        "key": key,
        "goal": goal_sql,
        "reference": "'ORDER-' || n",
        "site": "''",
        "email_hash": "''",
        "session_id": "''",
        "occurred_at": "at",
        "net_value": "59.97",
        "transaction_value": "59.97" if is_over else "NULL",
        "currency": "'EUR'",
        "description": f"'Order ORDER-' || n || ' KL-' || {trace}",
        "category": "'purchase'",
        "terms": "'{}'",
        "trace_key": trace,
        "status": status_sql,
        "reason": "''",
        "withdrawn_at": "NULL",
        "due_at": "NULL" if is_over else "at",
        "lease": _LEASE[vendor] if is_over else "NULL",
        "tries": "1" if is_over else "0",
        "created_at": "at",
        "updated_at": "at",
        "remote_id": "CASE WHEN n % 10 > 0 THEN 'remote-' || n ELSE '' END" if is_over else "''",
        "loyalty_units": issued.format("100"),
        "confirmation_status": "'pending'" if is_over else "''",
        "issued_at": issued.format("at"),
        "reply": issued.format(reply),
    }
    if vendor == "postgresql":
        columns["terms"] += "::jsonb"
        columns["lease"] += "::uuid" if not is_over else ""
    names = ", ".join(f'"{name}"' for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO koomalooma_commitment ({names}) SELECT {', '.join(columns.values())}"
            f" FROM (SELECT n, {at} AS at FROM {series}) AS rows".replace(" % ", " %% "),
            [start],
        )
        _carry_on(cursor, "koomalooma_commitment")


@contextlib.contextmanager
def without_indexes() -> Iterator[None]:
    """Fill a large table at a bearable price: its indexes are made anew at the end."""
    if connection.vendor == "postgresql":
        listing = (
            "SELECT indexname, indexdef FROM pg_indexes LEFT JOIN pg_constraint ON conname = indexname"
            " WHERE tablename = 'koomalooma_commitment' AND conname IS NULL"
        )
    else:
        listing = (
            "SELECT name, sql FROM sqlite_master"
            " WHERE type = 'index' AND tbl_name = 'koomalooma_commitment' AND sql IS NOT NULL"
        )
    with connection.cursor() as cursor:
        cursor.execute(listing)
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {connection.ops.quote_name(name)}")
        yield
        for _, definition in indexes:
            cursor.execute(definition)


def analyze() -> None:
    """Let the database know its new tables, as its own housekeeping would."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def empty() -> None:
    """Take all commitments out."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("TRUNCATE koomalooma_decision, koomalooma_deliveryattempt, koomalooma_commitment")
        else:
            DeliveryAttempt.objects.all()._raw_delete(connection.alias)
            Commitment.objects.all()._raw_delete(connection.alias)


def _past(days: float) -> dt.datetime:
    return timezone.now() - dt.timedelta(days=days)
