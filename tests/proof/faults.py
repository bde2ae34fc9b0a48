"""Every fault of the sandbox's catalogue, and what a delivery must make of it."""

from __future__ import annotations

from typing import Any

LONG = 1.5  # seconds: longer than a call may take
# (fault, options, status, whether the points are known, bookings)
TABLE: list[tuple[str, dict[str, Any], str, bool, int]] = [
    ("close_before_reading", {}, "in_doubt", False, 0),
    ("reset_before_reading", {}, "in_doubt", False, 0),
    ("part_read", {}, "in_doubt", False, 0),
    ("close_before_booking", {}, "in_doubt", False, 0),
    ("reset_before_booking", {}, "in_doubt", False, 0),
    ("silence_before_booking", {"seconds": LONG}, "in_doubt", False, 0),
    ("close_after_booking", {}, "in_doubt", False, 1),
    ("reset_after_booking", {}, "in_doubt", False, 1),
    ("silence_after_booking", {"seconds": LONG}, "in_doubt", False, 1),
    ("late_201", {"seconds": LONG}, "in_doubt", False, 1),
    ("late_booking", {"seconds": LONG}, "in_doubt", False, 1),
    ("garbage_status_line", {}, "in_doubt", False, 1),
    ("short_body", {}, "issued", False, 1),
    ("stalled_body", {"seconds": LONG}, "issued", False, 1),
    ("reset_body", {}, "issued", False, 1),
    ("bad_gzip", {}, "issued", False, 1),
    ("truncated_json", {}, "issued", False, 1),
    ("empty_body", {}, "issued", False, 1),
    ("html_body", {}, "issued", False, 1),
    ("huge_body", {"bytes": 200_000}, "issued", False, 1),
    ("deep_json", {"depth": 5_000}, "issued", False, 1),
    ("nul_in_body", {}, "issued", True, 1),
    ("odd_types", {}, "issued", True, 1),
    ("drip_status", {"every": 0.2}, "in_doubt", False, 1),
    ("drip_headers", {"every": 0.2}, "issued", False, 1),
    ("drip_body", {"every": 0.2}, "issued", False, 1),
    ("ok_200_commitment", {}, "issued", True, 1),
    ("ok_200_html", {}, "in_doubt", False, 0),
    ("redirect", {"status": 307}, "in_doubt", False, 0),
    ("redirect", {"status": 302}, "in_doubt", False, 0),
    *[("status", {"status": code}, "refused", False, 0) for code in (400, 404, 405, 410, 413, 415, 422)],
    *[("status", {"status": code}, "queued", False, 0) for code in (401, 402, 403, 429)],
    *[("status", {"status": code}, "in_doubt", False, 0) for code in (202, 204, 409, 418, 500, 502, 503)],
    ("status", {"status": 500, "book": True}, "in_doubt", False, 1),
    ("status", {"status": 409, "book": True}, "in_doubt", False, 1),
]
