"""koomalooma's published API document, the one amendment to it, and the check of an exchange against both.

The document shows no body for `POST /users`, though it explains two fields that the caller must fill in and
names a 400. The amendment: that body is the `User` of the answer, as JSON.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parent / "koomalooma-partner.openapi.json").read_text())
AMENDMENT = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/User"}}},
}


def amend(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the amendment, and nothing else changed."""
    amended = copy.deepcopy(dict(document))
    amended["paths"]["/users"]["post"]["requestBody"] = AMENDMENT
    return amended


API = OpenAPI.from_dict(amend(DOCUMENT))


def read_request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> MockRequest:
    """Read a request as if it had gone to the document's own server."""
    names = {name.lower(): value for name, value in headers.items()}
    return MockRequest(
        "https://api.koomalooma.com",
        method.lower(),
        path,
        headers=dict(headers),
        data=body,
        content_type=names.get("content-type", ""),
    )


def check_request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
    """Hold a request against the document.

    Raises:
        OpenAPIError: the document does not allow it.
    """
    API.validate_request(read_request(method, path, headers, body))


def check_answer(method: str, path: str, status: int, content_type: str, answer: bytes) -> None:
    """Hold an answer against the document.

    Raises:
        OpenAPIError: the document does not allow it.
    """
    API.validate_response(
        read_request(method, path, {}, b""),
        MockResponse(answer, status_code=status, content_type=content_type),
    )
