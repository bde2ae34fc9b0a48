"""Carries decisions out: each row by itself, a guarded UPDATE and its line of history.

Every decision is a compare-and-swap on what the person saw, and takes the lease away, so that neither a late
answer nor a second click can do harm. Who may decide is the edges' matter.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from django.db import router, transaction
from django.db.models import Max

from .. import wakeup
from ..exceptions import NotAllowed
from ..history import By, keep_decision
from ..models import Commitment, Decision, DeliveryAttempt
from ..querysets import database_now
from ..signals import commitment_issued, commitment_queued
from ..statuses import CommitmentStatus
from .verbs import VERBS, Facts, Step, Verb, Wish, plan

_S = CommitmentStatus
CHANGED: Final = "It has changed in the meantime. Look at it again."


@dataclass(slots=True)
class Decided:
    """What came of a decision: the rows that were changed, and those left out with the reason."""

    done: list[Commitment] = field(default_factory=list)
    left_out: list[tuple[Commitment, str]] = field(default_factory=list)


Rows = Commitment | Iterable[Commitment]


def settle(
    rows: Rows, by: By, *, commitment_id: str = "", units: int | None = None, evidence: str = ""
) -> Decided:
    """Record that koomalooma booked it, with what is known of it."""
    return decide("settle", rows, by, Wish(why=evidence, commitment_id=commitment_id, units=units))


def send_again(rows: Rows, by: By, *, why: str) -> Decided:
    """Send what was unclear or refused once more; each decision allows one more call."""
    return decide("send_again", rows, by, Wish(why=why))


def give_up(rows: Rows, by: By, *, why: str = "") -> Decided:
    """Leave what is unclear as it is."""
    return decide("give_up", rows, by, Wish(why=why))


def restore(rows: Rows, by: By, *, why: str = "") -> Decided:
    """Queue what was cancelled, refused or got no points; what had no campaign gets the one of today."""
    return decide("restore", rows, by, Wish(why=why))


def hold(rows: Rows, by: By, *, until: dt.datetime, why: str = "") -> Decided:
    """Keep what waits from being sent before ``until``."""
    return decide("hold", rows, by, Wish(why=why, until=until))


def send_now(rows: Rows, by: By, *, why: str = "") -> Decided:
    """Send what waits with the next run."""
    return decide("send_now", rows, by, Wish(why=why))


def cancel(rows: Rows, by: By, *, why: str = "") -> Decided:
    """Withdraw what is not sent."""
    return decide("cancel", rows, by, Wish(why=why))


def reopen(rows: Rows, by: By, *, why: str) -> Decided:
    """Put in doubt again what a person had settled."""
    return decide("reopen", rows, by, Wish(why=why))


def preview(name: str, rows: Sequence[Commitment], wish: Wish | None = None) -> list[Step]:
    """Say what the decision would do to each row, and write nothing."""
    verb = VERBS[name]
    facts = replace(read_facts(rows, wish or Wish()), is_question=wish is None)
    return [plan(verb, row, facts) for row in rows]


def version(row: Commitment) -> str:
    """Return a mark of what a person sees of the row: what is decided on an older one is left out."""
    seen = f"{row.status} {row.lease} {row.updated_at.timestamp()!r}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def decide(name: str, rows: Rows, by: By, wish: Wish, *, seen: Mapping[int, str] | None = None) -> Decided:
    """Carry a decision out, each row by itself: a guarded UPDATE, and its line of history.

    Args:
        name: One of :data:`VERBS`.
        rows: One row, or many. What has changed since they were read is left alone.
        by: The person, or the name of a command.
        seen: The :func:`version` of each row when the person decided, by primary key.

    Raises:
        NotAllowed: A single row was given and its status does not allow it, or the decision needs a reason
            and has none, or one commitment's id or points were given for several rows.
    """
    verb = VERBS[name]
    single = isinstance(rows, Commitment)
    chosen = [rows] if isinstance(rows, Commitment) else list(rows)
    if verb.needs_why and not wish.why.strip():
        raise NotAllowed("Say why: it is kept with the decision.")
    if len(chosen) > 1 and (wish.commitment_id or wish.units is not None):
        raise NotAllowed("An id or points belong to one commitment: settle it by itself.")
    if wish.units is not None and not 0 <= wish.units < 2**63:
        raise NotAllowed("Points are a whole number, 0 or more.")
    facts = read_facts(chosen, wish)
    result = Decided()
    for row in chosen:
        if seen is not None and seen.get(row.pk) != version(row):
            result.left_out.append((row, CHANGED))
            continue
        step = plan(verb, row, facts)
        if step.values is None:
            result.left_out.append((row, step.sentence))
        elif _write(verb, row, step.values, by, facts):
            result.done.append(row)
        else:
            result.left_out.append((row, CHANGED))
    if single and result.left_out:
        raise NotAllowed(result.left_out[0][1])
    return result


def _write(verb: Verb, row: Commitment, values: Mapping[str, Any], by: By, facts: Facts) -> bool:
    using = router.db_for_write(Commitment)
    before = row.status
    with transaction.atomic(using=using):
        written = (
            Commitment.objects.using(using)
            .filter(pk=row.pk, status=before, lease=row.lease, updated_at=row.updated_at)
            .update(**values, lease=None, updated_at=facts.now)
        )
        if not written:
            return False
        wish = facts.wish
        told = {"commitment_id": wish.commitment_id.strip(), "units": wish.units}
        keep_decision(
            row.pk, verb.name, by, facts.now, why=wish.why, before=before, after=verb.after,
            details={key: value for key, value in told.items() if value not in ("", None)},
        )  # fmt: skip
        for name, value in values.items():
            setattr(row, name, value)
        row.lease, row.updated_at = None, facts.now
        _announce(verb, row, using)
    return True


def _announce(verb: Verb, row: Commitment, using: str) -> None:
    """After the commit, tell listeners and a worker. Plain functions: a partial raises after the commit."""
    signal = {"settle": commitment_issued, "restore": commitment_queued}.get(verb.name)
    if signal is not None:

        def after_commit() -> None:
            signal.send_robust(sender=Commitment, commitment=row)

        transaction.on_commit(after_commit, using=using, robust=True)
    if row.status == _S.QUEUED and verb.name != "hold":
        wakeup.after_commit(using)


def read_facts(rows: Sequence[Commitment], wish: Wish) -> Facts:
    """Read what the decision depends on beside the rows, in two statements for all of them."""
    using = router.db_for_write(Commitment)
    pks = [row.pk for row in rows]
    calls = DeliveryAttempt.objects.using(using).filter(commitment__in=pks).order_by()
    decisions: dict[int, list[Decision]] = {}
    for decision in Decision.objects.using(using).filter(commitment__in=pks).order_by("id"):
        decisions.setdefault(decision.commitment_id, []).append(decision)
    return Facts(
        now=database_now(using),
        wish=wish,
        last_calls=dict(calls.values_list("commitment").annotate(last=Max("started_at"))),
        decisions=decisions,
    )
