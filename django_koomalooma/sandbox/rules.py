"""What the pretend koomalooma answers: the checks of the API document, and points by campaign.

Owns the decision and leaves bytes to wire.py and books to ledger.py. Where the document is silent the choice
is ours and marked so.
"""

from __future__ import annotations

import hmac
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal
from urllib.parse import unquote

from .ledger import CapReached, Ledger, Row, now
from .wire import JSON_TYPE, Reply, Request

API = "/api"
TOKEN_HEADER = "x-koomalooma-jwt"  # the header's name, in lower case as the wire hands it over
USER_FIELDS = ("partner_id", "partner_user_id", "user_session_id")
COMMITMENT_FIELDS = (
    "campaign_id",
    "transaction_value",
    "promotion_goal_description",
    "promotion_goal_category",
)
AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")
LARGEST_INT32 = 2**31 - 1

Call = Literal["users", "commitments", "other"]


class Refusal(Exception):
    """The request is answered with a refusal; nothing is booked."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.reply = Reply.of(status, {"error": reason}, **headers)


@dataclass(frozen=True, slots=True)
class CampaignRule:
    """How a campaign counts: a percentage of the transaction value, or a fixed number of points."""

    percent: Decimal | None = None
    points: int = 0

    @classmethod
    def read(cls, name: str, value: object) -> CampaignRule:
        """Read `{"percent": 5}` or `{"points": 250}`.

        Raises:
            ValueError: it is neither.
        """
        match value:
            case {"percent": bool()} | {"points": bool()}:
                pass
            case {"percent": int() | float() as percent, **rest} if not rest and 0 <= percent <= 1_000_000:
                return cls(percent=Decimal(str(percent)))
            case {"points": int() as points, **rest} if not rest and 0 <= points <= LARGEST_INT32:
                return cls(points=points)
        raise ValueError(f'campaign {name!r} must be {{"percent": 5}} or {{"points": 250}}, not {value!r}')

    def units(self, value: Decimal) -> int:
        """Return the points for a transaction: at 100 points = EUR 1, one percent of EUR 1 is one point."""
        if self.percent is None:
            return self.points
        return int((value * self.percent).quantize(Decimal(1), ROUND_HALF_UP))


def call_of(method: str, path: str) -> Call:
    """Name the API call that a request makes, so that faults can be aimed at it."""
    if method == "POST":
        match _segments(path):
            case ["users"]:
                return "users"
            case ["users", _, "commitments"]:
                return "commitments"
    return "other"


def read_json(request: Request) -> dict[str, Any]:
    """Read a JSON object from the body.

    Raises:
        Refusal: 400, saying what is wrong.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
        raise Refusal(400, f"Content-Type must be {JSON_TYPE}")
    try:
        value = json.loads(request.body.decode())
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body is not a JSON object")
    return value


class Rules:
    """One partner account: its token, campaigns and caps, and the ledger it books into."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        token: str,
        partner_id: str,
        any_campaign: CampaignRule,
        campaigns: Mapping[str, object] | None,
        daily_cap: int | None,
        monthly_cap: int | None,
    ) -> None:
        self.ledger = ledger
        self.token = token
        self.partner_id = partner_id
        self.daily_cap = daily_cap
        self.monthly_cap = monthly_cap
        self._any_campaign = any_campaign
        self._campaigns = None
        if campaigns is not None:
            self._campaigns = {name: CampaignRule.read(name, value) for name, value in campaigns.items()}

    def answer(self, request: Request, *, book: bool = True, user_id: str | None = None) -> Reply:
        """Answer an API call.

        Args:
            book: False answers as if it had booked, and books nothing.
            user_id: the id under which a new user is to be known, if not its `partner_user_id`.
        """
        try:
            return self._answer(request, book, user_id)
        except Refusal as refusal:
            return refusal.reply

    def _answer(self, request: Request, book: bool, user_id: str | None) -> Reply:
        match _segments(request.path):
            case ["users"]:
                self._check_caller(request)
                return self._create_user(request, book, user_id)
            case ["users", quoted, "commitments"]:
                self._check_caller(request)
                return self._create_commitment(request, unquote(quoted), book)
        raise Refusal(404, "koomalooma has no such path")

    def _check_caller(self, request: Request) -> None:
        if request.method != "POST":
            raise Refusal(405, "only POST is known here", Allow="POST")
        sent = request.headers.get(TOKEN_HEADER, "").encode("latin-1")
        if not hmac.compare_digest(sent, self.token.encode("latin-1")):
            raise Refusal(403, "the token in X-KoomaLooma-JWT is missing or wrong")

    def _create_user(self, request: Request, book: bool, user_id: str | None) -> Reply:
        fields = _strings(request, USER_FIELDS)
        if fields["partner_id"] != self.partner_id:  # our choice: the token belongs to another partner
            raise Refusal(403, "partner_id is not the partner of this token")
        if not fields["partner_user_id"]:  # our choice: an empty one cannot stand in a path
            raise Refusal(400, "partner_user_id is empty")
        if book:
            known_as = user_id or fields["partner_user_id"]
            self.ledger.add_user(known_as, fields["partner_user_id"], fields["user_session_id"])
        return Reply.of(201, fields)

    def _create_commitment(self, request: Request, user_id: str, book: bool) -> Reply:
        fields = _strings(request, COMMITMENT_FIELDS)
        if not AMOUNT.fullmatch(fields["transaction_value"]):  # our choice: the document says only "string"
            raise Refusal(400, "transaction_value is not an amount such as 1234.50")
        if not self.ledger.has_user(user_id):  # our choice: "user_id of the user to assign points to"
            raise Refusal(400, "no such user: POST /users first")
        rule = self._rule(fields["campaign_id"])
        units = rule.units(Decimal(fields["transaction_value"]))
        if units > LARGEST_INT32:
            raise Refusal(400, "more points than an int32 can hold")
        row: Row = {"user_id": user_id, **fields}
        if book:
            try:
                row = self.ledger.book(row, units, daily_cap=self.daily_cap, monthly_cap=self.monthly_cap)
            except CapReached as error:  # our choice: what the service answers at a cap is not documented
                raise Refusal(403, str(error)) from error
        else:
            row |= {"id": uuid.uuid4().hex, "loyalty_units": units, "at": now()}
        return Reply.of(201, self._commitment(row, rule))

    def _rule(self, campaign_id: str) -> CampaignRule:
        if self._campaigns is None:
            return self._any_campaign
        if campaign_id not in self._campaigns:
            raise Refusal(400, "no such campaign")
        return self._campaigns[campaign_id]

    def _commitment(self, row: Mapping[str, Any], rule: CampaignRule) -> dict[str, object]:
        # goal and loyalty_accumulation_value are strings that nobody explains; timestamps come in two forms.
        value = str(rule.points if rule.percent is None else rule.percent)
        return {
            "id": row["id"],
            "user_id": row["user_id"],
            "partner_id": self.partner_id,
            "loyalty_units": row["loyalty_units"],
            "free_loyalty_units": row["loyalty_units"],
            "redeemable_loyalty_units": row["loyalty_units"],
            "redeemed_loyalty_units": 0,
            "redeemed": False,
            "loyalty_accumulation_value": value,
            "goal": {"type": "fixed" if rule.percent is None else "percentage", "value": value},
            "confirmation_status": "confirmed",
            "promotion_goal_description": row["promotion_goal_description"],
            "promotion_goal_category": row["promotion_goal_category"],
            "created_at": row["at"],
            "updated_at": row["at"][:23] + "Z",
        }


def _segments(path: str) -> list[str]:
    path = path.partition("?")[0]
    return path[len(API) + 1 :].split("/") if path.startswith(API + "/") else []


def _strings(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    body = read_json(request)
    for name in names:
        if not isinstance(body.get(name), str):
            raise Refusal(400, f"{name} is required and must be a string")
    return {name: body[name] for name in names}
