"""Reads koomalooma's answers leniently, after the verdict: nothing odd in one can make it look unsent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from .models import storable

_DEEPEST = 20  # MariaDB refuses JSON deeper than 32.
_LONGEST_RAW = 2048
_MOST_UNITS = 2**63

FIELDS = (
    "id",
    "user_id",
    "partner_id",
    "loyalty_units",
    "free_loyalty_units",
    "redeemable_loyalty_units",
    "redeemed_loyalty_units",
    "redeemed",
    "loyalty_accumulation_value",
    "goal",
    "confirmation_status",
    "promotion_goal_description",
    "promotion_goal_category",
    "created_at",
    "updated_at",
)
"""The fifteen fields of a Commitment in the API document."""


@dataclass(frozen=True, slots=True)
class CommitmentReply:
    """What is known of an issued commitment; unknown is ``""`` or ``None``, never a guess."""

    remote_id: str
    loyalty_units: int | None
    confirmation_status: str
    reply: Any


def read_json(body: bytes) -> Any:
    """Return the answer as JSON that every database keeps, or ``{"raw": …}`` with its first 2 KiB."""
    try:
        value = json.loads(body, parse_float=_finite, parse_int=_integer, parse_constant=str)
        return _keepable(value, 0)
    except (ValueError, RecursionError):
        return {"raw": cut_text(body)}


def cut_text(body: bytes, longest: int = _LONGEST_RAW) -> str:
    """Return the first ``longest`` bytes of an answer as text that every database keeps."""
    return storable(body[:longest].decode("utf-8", "replace"))


def read_commitment(body: bytes) -> CommitmentReply:
    """Read a Commitment out of an answer of which only its status is trusted."""
    reply = read_json(body)
    fields = reply if isinstance(reply, dict) else {}
    return CommitmentReply(
        remote_id=_text(fields.get("id"), 255),
        loyalty_units=_units(fields.get("loyalty_units")),
        confirmation_status=_text(fields.get("confirmation_status"), 50),
        reply=reply,
    )


def read_user_id(body: bytes) -> str:
    """Return the first of ``user_id``, ``id`` in the answer of ``POST /users``, or ``""`` (O2)."""
    reply = read_json(body)
    fields = reply if isinstance(reply, dict) else {}
    return _text(fields.get("user_id"), 255) or _text(fields.get("id"), 255)


def _text(value: Any, longest: int) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return str(value)[:longest]


def _units(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_UNITS:
        return None
    return value


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _integer(text: str) -> int | str:
    return int(text) if len(text) < 20 else text


def _keepable(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_keepable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {storable(key): _keepable(item, depth + 1) for key, item in value.items()}
    return value
