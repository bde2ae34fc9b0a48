"""The pretend koomalooma's ledger can be believed: durable, gapless, and taken up again."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from django_koomalooma.sandbox import LedgerError, Sandbox

from .sandbox_client import COMMITMENT, COMMITMENTS, USER, call


def test_the_ledger_line_holds_what_was_sent_and_what_it_gave(tmp_path: Path) -> None:
    with Sandbox(ledger=tmp_path / "ledger.jsonl") as sandbox:
        call(sandbox, "/api/users", USER)
        call(sandbox, COMMITMENTS, COMMITMENT)

    line = json.loads((tmp_path / "ledger.jsonl").read_text())
    assert re.fullmatch(r"[0-9a-f]{32}", line.pop("id"))
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", line.pop("at"))
    assert line == {"n": 1, "user_id": "u1", **COMMITMENT, "loyalty_units": 500}


def test_numbering_and_users_go_on_after_a_restart(tmp_path: Path) -> None:
    with Sandbox(ledger=tmp_path / "ledger.jsonl") as sandbox:
        call(sandbox, "/api/users", USER)
        call(sandbox, COMMITMENTS, COMMITMENT)

    with Sandbox(ledger=tmp_path / "ledger.jsonl") as sandbox:
        status, _ = call(sandbox, COMMITMENTS, COMMITMENT)

    assert status == 201
    assert [booking["n"] for booking in sandbox.bookings()] == [1, 2]


def test_a_ledger_line_cut_off_by_a_crash_is_no_booking(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Sandbox(ledger=path) as sandbox:
        call(sandbox, "/api/users", USER)
        call(sandbox, COMMITMENTS, COMMITMENT)
    whole = path.read_text()
    path.write_text(whole + '{"n": 2, "id": "ab')

    with Sandbox(ledger=path) as sandbox:
        call(sandbox, COMMITMENTS, COMMITMENT)

    assert [booking["n"] for booking in sandbox.bookings()] == [1, 2]
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_booking_is_forced_to_the_disk_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[str] = []
    ledger = tmp_path / "ledger.jsonl"
    monkeypatch.setattr(os, "fsync", lambda _: on_disk.append(ledger.read_text()))
    with Sandbox(ledger=ledger) as sandbox:
        call(sandbox, "/api/users", USER)

        _, answer = call(sandbox, COMMITMENTS, COMMITMENT)

    assert answer["id"] in on_disk[-1]


def test_without_durability_nothing_is_forced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", forced.append)
    with Sandbox(ledger=tmp_path / "ledger.jsonl", durable=False) as sandbox:
        call(sandbox, "/api/users", USER)

        call(sandbox, COMMITMENTS, COMMITMENT)

    assert forced == []
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1


def test_two_sandboxes_cannot_share_a_ledger(tmp_path: Path) -> None:
    with (
        Sandbox(ledger=tmp_path / "ledger.jsonl"),
        pytest.raises(LedgerError, match="give each its own file"),
    ):
        Sandbox(ledger=tmp_path / "ledger.jsonl").start()


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n")

    with pytest.raises(LedgerError, match="is not a sandbox ledger"):
        Sandbox(ledger=path).start()

    assert path.read_text() == "dear diary\n"


def test_many_clients_at_once_get_one_booking_each(tmp_path: Path) -> None:
    with Sandbox(ledger=tmp_path / "ledger.jsonl") as sandbox:
        call(sandbox, "/api/users", USER)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: call(sandbox, COMMITMENTS, COMMITMENT), range(200)))

    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert {status for status, _ in answers} == {201}
    assert [line["n"] for line in lines] == list(range(1, 201))
    assert {line["id"] for line in lines} == {answer["id"] for _, answer in answers}


@pytest.mark.parametrize(
    "caps",
    [
        pytest.param({"daily_cap": 1000, "monthly_cap": None}, id="daily"),
        pytest.param({"daily_cap": None, "monthly_cap": 1000}, id="monthly"),
    ],
)
def test_a_cap_may_be_reached_and_not_exceeded_also_after_a_restart(
    tmp_path: Path, caps: dict[str, int | None]
) -> None:
    with Sandbox(
        ledger=tmp_path / "l", daily_cap=caps["daily_cap"], monthly_cap=caps["monthly_cap"]
    ) as first:
        call(first, "/api/users", USER)
        statuses = [call(first, COMMITMENTS, COMMITMENT)[0]]
    with Sandbox(
        ledger=tmp_path / "l", daily_cap=caps["daily_cap"], monthly_cap=caps["monthly_cap"]
    ) as second:
        statuses += [call(second, COMMITMENTS, COMMITMENT)[0] for _ in range(2)]

    assert statuses == [201, 201, 403]
    assert len(second.bookings()) == 2
