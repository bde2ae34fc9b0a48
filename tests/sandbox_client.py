"""A bare HTTP client for tests of the sandbox, and requests that it accepts."""

from __future__ import annotations

import http.client
import json
from typing import Any

from django_koomalooma.sandbox import Sandbox

USER = {"partner_id": "sandbox-partner", "partner_user_id": "u1", "user_session_id": "s1"}
COMMITMENT = {
    "campaign_id": "summer",
    "transaction_value": "100.00",
    "promotion_goal_description": "Order 7 KL-ABC",
    "promotion_goal_category": "books",
}
HEADERS = {"X-KoomaLooma-JWT": "sandbox-token", "Content-Type": "application/json"}
COMMITMENTS = "/api/users/u1/commitments"


def call(
    sandbox: Sandbox,
    path: str,
    body: object = None,
    *,
    method: str = "POST",
    headers: dict[str, str] = HEADERS,
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(sandbox.host, sandbox.port, timeout=10)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()
