"""The verbs of review: on which statuses each decision may fall, and what it would write. Writes nothing."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django.utils import timezone

from ..conf import conf
from ..deciding import reprice
from ..events import format_amount
from ..exceptions import NotAllowed
from ..history import LATE_ANSWER
from ..models import Commitment, Decision, storable
from ..statuses import CommitmentStatus, may_become

_S = CommitmentStatus

WAIT: Final = dt.timedelta(minutes=15)
"""An unclear commitment is not sent again before: until then its answer may still come."""
LONGEST_HOLD: Final = dt.timedelta(days=3660)
SENT_BEFORE: Final = "An earlier call was unclear, so it may have arrived all the same."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the person said with a decision.

    Args:
        why: The reason, or the evidence.
        commitment_id: The commitment's id at koomalooma, where known.
        units: The points that koomalooma booked, where known.
        until: When a held commitment may be sent.
    """

    why: str = ""
    commitment_id: str = ""
    units: int | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a decision would do to one row: write ``values``, or nothing, as ``sentence`` says."""

    row: Commitment
    sentence: str
    values: Mapping[str, Any] | None

    @property
    def is_allowed(self) -> bool:
        """Whether the row's status allows the decision."""
        return self.values is not None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the rows of one decision, read once for all of them."""

    now: dt.datetime
    wish: Wish
    last_calls: Mapping[int, dt.datetime]
    decisions: Mapping[int, Sequence[Decision]]
    is_question: bool = False
    """Whether the person has not said anything yet, and is only shown what would happen."""

    def has(self, row: Commitment, what: str, *, before: str = "") -> bool:
        """Tell whether ``what`` was decided about the row."""
        return any(
            decision.what == what and before in ("", decision.before)
            for decision in self.decisions.get(row.pk, ())
        )


def plan(verb: Verb, row: Commitment, facts: Facts) -> Step:
    """Say what the decision would do to the row."""
    now = CommitmentStatus(row.status)
    if now not in verb.before or not (now == verb.after or may_become(now, verb.after)):
        wanted = " or ".join(f"“{status.label}”" for status in _S if status in verb.before)
        return Step(row, f"It is “{now.label}”; this is only for {wanted}.", None)
    try:
        sentence, values = verb.plan(row, facts)
    except NotAllowed as reason:
        return Step(row, str(reason), None)
    return Step(row, sentence, values)


def _refuse_unsendable(row: Commitment) -> None:
    """Refuse what the next run would cancel, or may not send at all."""
    if conf.mode != "live":
        raise NotAllowed(f"KOOMALOOMA_MODE is {conf.mode}: nothing is sent.")
    if row.user_id is None and not row.email_hash:
        raise NotAllowed("There is nobody to give points to: a guest, or the account was deleted.")
    if row.terms.get("before_event"):
        raise NotAllowed("The shop has not said yet that it was paid.")


def _amount(row: Commitment, value: Decimal) -> str:
    return f"{format_amount(value, row.currency)} {row.currency}"


def _clock(at: dt.datetime) -> str:
    local = timezone.localtime(at) if timezone.is_aware(at) else at
    return f"{local:%d %b %Y %H:%M}"


def _settle(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    wish = facts.wish
    told: dict[str, Any] = {}
    for decision in facts.decisions.get(row.pk, ()):
        if decision.what == LATE_ANSWER and decision.details.get("verdict") == "answered":
            told = decision.details
    units = wish.units if wish.units is not None else told.get("units")
    commitment_id = storable(wish.commitment_id.strip())[:255] or told.get("commitment_id", "")
    points = "its points stay unknown" if units is None else f"{units:,} points"
    return f"Becomes Sent; {points}.", {
        "status": _S.ISSUED,
        "due_at": None,
        "remote_id": commitment_id,
        "loyalty_units": units,
        "confirmation_status": told.get("confirmation_status", ""),
        "reply": told.get("reply"),
        # The points count for the day on which they were booked, not for the day of the decision.
        "issued_at": facts.last_calls.get(row.pk, facts.now),
        "reason": storable(f"Settled by a person: {wish.why}".strip(": ")),
    }


def _send_again(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    amount = _amount(row, row.net_value)
    _refuse_unsendable(row)
    if row.withdrawn_at is not None or (not row.net_value and not row.is_fixed):
        raise NotAllowed("The shop has withdrawn it: it is worth nothing any more.")
    values = {"status": _S.QUEUED, "due_at": facts.now, "reason": ""}
    if row.status != _S.IN_DOUBT:
        return f"Is sent again: {amount}.", values
    last = facts.last_calls.get(row.pk)
    if last is not None and facts.now < last + WAIT:
        raise NotAllowed(
            f"Its last call began at {_clock(last)}: its answer may still come. "
            f"Wait until {_clock(last + WAIT)}."
        )
    return f"Is sent again: {amount}. If it did arrive before, the customer gets the points twice.", values


def _give_up(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    return "Becomes Given up: nothing more is sent. It may have arrived all the same.", {
        "status": _S.WRITTEN_OFF,
        "reason": storable(f"Given up by a person: {facts.wish.why}".strip(": ")),
    }


def _restore(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    if row.status == _S.REFUSED:
        return _send_again(row, facts)
    _refuse_unsendable(row)
    new = copy.copy(row)
    new.terms = dict(row.terms)
    values: dict[str, Any] = {}
    if row.campaign_id is None:
        if reason := reprice(new):
            raise NotAllowed(reason)
        for name in ("campaign", "currency", "net_value", "trace_key", "description", "category", "terms"):
            values[name] = getattr(new, name)
    elif row.withdrawn_at is not None or not row.net_value:
        # As the shop amended it last, else as the event came.
        last = row.terms.get("last_net_value", row.terms.get("net_value", "0"))
        new.net_value = row.net_value or Decimal(last)
    if not new.net_value and not new.is_fixed:
        raise NotAllowed("It is worth nothing.")
    due_at = row.occurred_at + dt.timedelta(days=int(new.terms.get("hold_days", 0)))
    due_at = max(facts.now, due_at)
    when = "with the next run" if due_at == facts.now else f"on {_clock(due_at)}"
    sentence = f"Is sent {when}: {_amount(new, new.net_value)}, campaign “{new.campaign}”."
    if new.campaign and new.campaign.starts_at > row.occurred_at:
        sentence += " (It was paid before the campaign began.)"
    if row.withdrawn_at is not None:
        sentence += " The shop had withdrawn it."
    elif row.reason:
        sentence += f" So far: {row.reason}"
    if facts.has(row, "send_again", before=_S.IN_DOUBT):
        sentence += f" {SENT_BEFORE}"
    return sentence, values | {
        "status": _S.QUEUED,
        "due_at": due_at,
        "net_value": new.net_value,
        "withdrawn_at": None,
        "reason": "",
    }


def _hold(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    if facts.is_question:
        return "Waits until the day that you choose.", {}
    until = facts.wish.until
    if until is None or not facts.now < until <= facts.now + LONGEST_HOLD:
        raise NotAllowed("Say until when: a time from now on, ten years ahead at most.")
    return f"Waits until {_clock(until)}.", {"due_at": until, "reason": storable(facts.wish.why)}


def _send_now(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    held = row.due_at is not None and row.due_at > facts.now
    instead = f" instead of on {_clock(row.due_at)}" if held and row.due_at else ""
    return f"Is sent with the next run{instead}: {_amount(row, row.net_value)}.", {
        "due_at": facts.now,
        "reason": "",
    }


def _cancel(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    reason = f"Cancelled by a person: {facts.wish.why}".strip(": ")
    sentence = "Becomes Cancelled: no points are sent."
    if facts.has(row, "send_again", before=_S.IN_DOUBT):
        sentence, reason = f"{sentence} {SENT_BEFORE}", f"{reason} {SENT_BEFORE}"
    return sentence, {"status": _S.CANCELLED, "due_at": None, "reason": storable(reason)}


def _reopen(row: Commitment, facts: Facts) -> tuple[str, dict[str, Any]]:
    if row.lease is not None or not facts.has(row, "settle"):
        raise NotAllowed("koomalooma itself said that it booked this one: there is nothing to reopen.")
    return "Becomes Unclear again; the id and points that were typed in are taken out.", {
        "status": _S.IN_DOUBT,
        "remote_id": "",
        "loyalty_units": None,
        "confirmation_status": "",
        "issued_at": None,
        "reply": None,
        "reason": storable(f"Opened again by a person: {facts.wish.why}"),
    }


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that staff may decide, in code's word and in a clerk's."""

    name: str
    label: str
    explanation: str
    permission: str
    before: frozenset[CommitmentStatus]
    after: CommitmentStatus
    plan: Callable[[Commitment, Facts], tuple[str, dict[str, Any]]]
    needs_why: bool = False


VERBS: Final[Mapping[str, Verb]] = {
    verb.name: verb
    for verb in (
        Verb(
            "send_now",
            "Send now",
            "Do not wait any longer: they are sent with the next run.",
            "manage",
            frozenset({_S.QUEUED}),
            _S.QUEUED,
            _send_now,
        ),
        Verb(
            "hold",
            "Hold back",
            "Wait until a day that you choose. Points cannot be taken back, so hold what may be returned.",
            "manage",
            frozenset({_S.QUEUED}),
            _S.QUEUED,
            _hold,
        ),
        Verb(
            "cancel",
            "Cancel: no points",
            "The customer gets no points for it. You can restore it later.",
            "manage",
            frozenset({_S.QUEUED, _S.REFUSED}),
            _S.CANCELLED,
            _cancel,
        ),
        Verb(
            "restore",
            "Give points after all",
            "Send what was cancelled, refused, or got no points. A campaign that came later counts too.",
            "manage",
            frozenset({_S.CANCELLED, _S.SKIPPED, _S.REFUSED}),
            _S.QUEUED,
            _restore,
        ),
        Verb(
            "settle",
            "It arrived",
            "You know that koomalooma booked the points: their support said so, or it is on an invoice.",
            "settle",
            frozenset({_S.IN_DOUBT, _S.WRITTEN_OFF}),
            _S.ISSUED,
            _settle,
        ),
        Verb(
            "send_again",
            "Send again",
            "You know that it did not arrive. Points are prepaid money: if it did arrive, it is paid twice.",
            "settle",
            frozenset({_S.IN_DOUBT, _S.REFUSED}),
            _S.QUEUED,
            _send_again,
            needs_why=True,
        ),
        Verb(
            "give_up",
            "Give up",
            "Leave it as it is, for ever unclear. The customer may go without points.",
            "settle",
            frozenset({_S.IN_DOUBT}),
            _S.WRITTEN_OFF,
            _give_up,
        ),
        Verb(
            "reopen",
            "It did not arrive after all",
            "Somebody had said that it arrived. It becomes unclear again, and can then be sent again.",
            "settle",
            frozenset({_S.ISSUED}),
            _S.IN_DOUBT,
            _reopen,
            needs_why=True,
        ),
    )
}
"""Every decision, in the order in which staff are offered them."""
