"""The sandbox's own pages under /_sandbox/, by which another process gives orders and reads the ledger.

A POST with orders must be JSON, so that no web page open in a browser can send it unasked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .rules import TOKEN_HEADER, Refusal, read_json
from .wire import Reply, Request

if TYPE_CHECKING:
    from .server import Sandbox

CONTROL = "/_sandbox/"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A call as it was read, the fault it suffered, and the answer unless a fault spoilt it."""

    request: Request
    fault: str
    reply: Reply | None

    def tell(self) -> dict[str, Any]:
        """Return it as JSON values, without the token."""
        headers = dict(self.request.headers)
        if TOKEN_HEADER in headers:
            headers[TOKEN_HEADER] = "(hidden)"
        return {
            "method": self.request.method,
            "path": self.request.path,
            "headers": headers,
            "body": self.request.body.decode(errors="replace"),
            "fault": self.fault,
            "status": self.reply.status if self.reply else None,
            "answer": self.reply.body.decode(errors="replace") if self.reply else None,
        }


def answer_control(sandbox: Sandbox, request: Request) -> Reply:
    """Answer one of the sandbox's own pages."""
    try:
        match request.method, request.path.removeprefix(CONTROL):
            case "GET", "ledger":
                return Reply.of(200, sandbox.bookings())
            case "GET", "users":
                return Reply.of(200, sandbox.users())
            case "GET", "requests":
                return Reply.of(200, sandbox.requests())
            case "POST", "behave":
                sandbox.behave()
                return Reply.of(200, {})
            case "POST", "misbehave":
                sandbox.misbehave(**read_json(request))
                return Reply.of(200, {})
    except Refusal as refusal:
        return refusal.reply
    except (TypeError, ValueError) as error:
        return Reply.of(400, {"error": str(error)})
    return Reply.of(404, {"error": "GET ledger, users, requests; POST misbehave, behave"})
