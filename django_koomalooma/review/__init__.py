"""What staff may decide about commitments (``rows``, ``verbs``) and about all sending (``sending``)."""

from .rows import (
    CHANGED,
    Decided,
    cancel,
    decide,
    give_up,
    hold,
    preview,
    reopen,
    restore,
    send_again,
    send_now,
    settle,
    version,
)
from .sending import CHOICES, Choice, choices, choose, only_from_now_on, send_recorded
from .verbs import LONGEST_HOLD, VERBS, WAIT, Step, Verb, Wish

__all__ = [
    "CHANGED",
    "CHOICES",
    "LONGEST_HOLD",
    "VERBS",
    "WAIT",
    "Choice",
    "Decided",
    "Step",
    "Verb",
    "Wish",
    "cancel",
    "choices",
    "choose",
    "decide",
    "give_up",
    "hold",
    "only_from_now_on",
    "preview",
    "reopen",
    "restore",
    "send_again",
    "send_now",
    "send_recorded",
    "settle",
    "version",
]
