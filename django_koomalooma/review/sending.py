"""What staff may decide about sending as a whole: pause, go on, and what only a person can answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from django.db import router, transaction

from .. import gate, wakeup
from ..exceptions import NotAllowed
from ..gate import Cause
from ..history import By, keep_decision, name_of
from ..models import Commitment
from ..querysets import database_now
from ..statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

BEFORE_TOKEN: Final = "Recorded before koomalooma's token was there; only what came later is sent."
_MANY = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision about sending, in code's word and in a clerk's, and the causes of a stop that it fits."""

    name: str
    label: str
    explanation: str
    causes: frozenset[str]
    carry_out: Callable[[By, str], None]


def _pause(by: By, why: str) -> None:
    gate.stop(f"Paused by {name_of(by)}{f': {why}' if why else '.'}", Cause.PERSON)


def _go_on(by: By, why: str) -> None:
    gate.resume()
    wakeup.notify()


def _is_copy(by: By, why: str) -> None:
    gate.stop(f"This is a copy: it never sends ({name_of(by)}).", Cause.COPY)


def send_recorded(by: By) -> None:
    """At the first token: send what was recorded before it, and go on."""
    choose("send_recorded", by)


def only_from_now_on(by: By) -> None:
    """At the first token: cancel what was recorded before it, and go on."""
    choose("only_from_now_on", by)


def _send_recorded(by: By, why: str) -> None:
    _go_on(by, why)


def _only_from_now_on(by: By, why: str) -> None:
    using = router.db_for_write(Commitment)
    waits, cancelled = CommitmentStatus.QUEUED, CommitmentStatus.CANCELLED
    values = {"status": cancelled, "due_at": None, "lease": None, "reason": BEFORE_TOKEN}
    waiting = Commitment.objects.using(using).filter(
        status=waits, due_at__isnull=False, terms__before_token=True
    )
    done = 0
    # Page by page, whatever becomes of the rows: in a transaction with an old snapshot those that others have
    # cancelled still seem to wait.
    while pks := list(waiting.filter(pk__gt=done).order_by("pk").values_list("pk", flat=True)[:_MANY]):
        for pk in pks:
            now = database_now(using)
            with transaction.atomic(using=using):
                if waiting.filter(pk=pk).update(**values, updated_at=now):
                    keep_decision(
                        pk, "cancel", by, now, why=BEFORE_TOKEN, before=waits, after=cancelled, details={}
                    )
        done = pks[-1]
    _go_on(by, why)


_OUTAGES = frozenset({Cause.ACCOUNT, Cause.CONFIGURATION, Cause.UNREACHABLE, Cause.REFUSED, Cause.IN_DOUBT})

CHOICES: Final[Mapping[str, Choice]] = {
    choice.name: choice
    for choice in (
        Choice(
            "pause",
            "Pause sending",
            "Nothing is sent until somebody presses “Go on”. Orders are still recorded, nothing is lost.",
            frozenset({""}) | _OUTAGES,
            _pause,
        ),
        Choice(
            "go_on",
            "Go on",
            "One commitment is sent first. If that succeeds, all that wait follow.",
            frozenset({Cause.PERSON}) | _OUTAGES,
            _go_on,
        ),
        Choice(
            "send_recorded",
            "Send what was recorded",
            "Everything that was recorded before the token was there is sent now.",
            frozenset({Cause.FIRST_TOKEN}),
            _send_recorded,
        ),
        Choice(
            "only_from_now_on",
            "Only from now on",
            "What was recorded before the token was there is cancelled. You can restore single orders later.",
            frozenset({Cause.FIRST_TOKEN}),
            _only_from_now_on,
        ),
        Choice(
            "moved",
            "This is the live shop, moved",
            "Sending goes on from here. Only if no other server still runs this shop: two would pay twice.",
            frozenset({Cause.MOVED, Cause.COPY}),
            _go_on,
        ),
        Choice(
            "copy",
            "This is a copy: never send",
            "Nothing is ever sent from here. Choose it for a test or staging server.",
            frozenset({Cause.MOVED}),
            _is_copy,
        ),
    )
}


def choices(code: str) -> list[Choice]:
    """Return what can be decided while sending is stopped for ``code``, a :class:`Cause`; ``""`` for none."""
    return [choice for choice in CHOICES.values() if code in choice.causes]


def choose(name: str, by: By, why: str = "") -> None:
    """Carry out a decision about sending.

    Raises:
        NotAllowed: It does not fit how sending stands now; somebody may have decided in the meantime.
    """
    choice = CHOICES[name]
    if gate.state().code not in choice.causes:
        raise NotAllowed(f"“{choice.label}” does not fit any more: look at how sending stands now.")
    choice.carry_out(by, why.strip())
    logger.warning("%s decided: %s", name_of(by), choice.label)
