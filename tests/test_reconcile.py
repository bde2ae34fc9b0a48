"""``koomalooma_reconcile``: what a statement proves is settled, what it contradicts is loud."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_koomalooma.models import Commitment, Decision
from django_koomalooma.statuses import CommitmentStatus
from tests.factories import CampaignFactory, CommitmentFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def campaign() -> Any:
    return CampaignFactory()


@pytest.fixture
def statement(tmp_path: Path) -> Path:
    return tmp_path / "statement.csv"


def run(path: Path, *arguments: str) -> tuple[int, str]:
    out, code = io.StringIO(), 0
    try:
        call_command("koomalooma_reconcile", str(path), *arguments, stdout=out, no_color=True)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    return code, out.getvalue()


def squeeze(text: str) -> str:
    return " ".join(text.split())


def in_doubt(campaign: Any, trace_key: str = "AAAAAAAAAAA2", **fields: Any) -> Commitment:
    row: Commitment = CommitmentFactory(campaign=campaign, in_doubt=True, trace_key=trace_key, **fields)
    return row


def test_a_dry_run_shows_what_would_change_and_changes_nothing(campaign: Any, statement: Path) -> None:
    row = in_doubt(campaign, reference="A-1")
    statement.write_text("Booking,Text,Points\nc-1,Order A-1 KL-AAAAAAAAAAA2,500\n")

    code, text = run(
        statement, "--map", "Booking=commitment_id", "Text=trace_key", "--map", "Points=loyalty_units"
    )

    row.refresh_from_db()
    assert (code, row.status, Decision.objects.count()) == (0, CommitmentStatus.IN_DOUBT, 0)
    assert "2 KL-AAAAAAAAAAA2 A-1 it arrived: Unclear becomes Sent, 500 points." in squeeze(text)
    assert "Nothing was changed. With --apply what arrived is settled." in text


def test_apply_settles_with_id_points_and_evidence(campaign: Any, statement: Path) -> None:
    row = in_doubt(campaign)
    statement.write_text("id,promotion_goal_description,loyalty_units\nc-1,Order A-1 KL-AAAAAAAAAAA2,500\n")

    code, text = run(statement, "--apply", "--by", "Ann")

    row.refresh_from_db()
    decision = Decision.objects.get()
    assert (code, row.status, row.remote_id, row.loyalty_units) == (0, CommitmentStatus.ISSUED, "c-1", 500)
    assert (decision.what, decision.by, decision.why) == ("settle", "Ann", "statement.csv, line 2")
    assert "1 settled." in text


def test_applying_twice_changes_nothing_more(campaign: Any, statement: Path) -> None:
    in_doubt(campaign)
    statement.write_text("id,promotion_goal_description\nc-1,KL-AAAAAAAAAAA2\n")
    run(statement, "--apply")

    code, text = run(statement, "--apply")

    assert (code, Decision.objects.count()) == (0, 1)
    assert "0 settled." in text
    assert "1 known as sent" in text


def test_a_commitment_is_found_by_its_id_alone(campaign: Any, statement: Path) -> None:
    row = in_doubt(campaign, remote_id="c-7")
    statement.write_text("id\nc-7\n")

    run(statement, "--apply")

    row.refresh_from_db()
    assert (row.status, row.remote_id, row.loyalty_units) == (CommitmentStatus.ISSUED, "c-7", None)


def test_what_was_given_up_and_arrived_is_settled_too(campaign: Any, statement: Path) -> None:
    row = CommitmentFactory(campaign=campaign, written_off=True, trace_key="AAAAAAAAAAA2")
    statement.write_text("Code\nAAAAAAAAAAA2\n")

    run(statement, "--map", "Code=trace_key", "--apply")

    row.refresh_from_db()
    assert row.status == CommitmentStatus.ISSUED


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("AAAAAAAAAAA2", True),
        ("kl-aaaaaaaaaaa2", True),
        ("Order KL-BBBBBBBBBBB2 KL-AAAAAAAAAAA2", True),
        ("Order AAAAAAAAAAA2", False),
        ("Order KL-AAAAAAAAAAA2X", False),
        ("", False),
    ],
    ids=["bare", "lower case", "the last of two", "no mark", "longer", "empty"],
)
def test_the_code_is_read_out_of_a_text(campaign: Any, statement: Path, text: str, found: bool) -> None:
    row = in_doubt(campaign)
    statement.write_text(f'Text,Other\n"{text}",x\n')

    run(statement, "--map", "Text=trace_key", "--apply")

    row.refresh_from_db()
    assert (row.status == CommitmentStatus.ISSUED) is found


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["c-1,KL-AAAAAAAAAAA2", "c-2,KL-AAAAAAAAAAA2"], "booked twice: Lines 2, 3: 2 bookings"),
        ([",KL-AAAAAAAAAAA2", ",KL-AAAAAAAAAAA2"], "booked twice: Lines 2, 3: 2 bookings"),
        (["c-1,KL-AAAAAAAAAAA2", ",KL-AAAAAAAAAAA2"], "booked twice: Lines 2, 3: 2 bookings"),
    ],
    ids=["two ids", "no ids", "one id"],
)
def test_two_bookings_of_one_commitment_are_loud_and_left_alone(
    campaign: Any, statement: Path, lines: list[str], words: str
) -> None:
    row = in_doubt(campaign)
    statement.write_text("\n".join(["id,promotion_goal_description", *lines]))

    code, text = run(statement, "--apply")

    row.refresh_from_db()
    assert (code, row.status) == (1, CommitmentStatus.IN_DOUBT)
    assert text.count("!!") == 2
    assert words in text


def test_the_same_line_twice_is_no_double(campaign: Any, statement: Path) -> None:
    row = in_doubt(campaign)
    statement.write_text("id,promotion_goal_description\nc-1,KL-AAAAAAAAAAA2\nc-1,KL-AAAAAAAAAAA2\n")

    code, text = run(statement, "--apply")

    row.refresh_from_db()
    assert (code, row.status) == (0, CommitmentStatus.ISSUED)
    assert "1 the same line again" in text


def test_another_booking_of_what_was_sent_is_loud(campaign: Any, statement: Path) -> None:
    CommitmentFactory(campaign=campaign, issued=True, trace_key="AAAAAAAAAAA2", remote_id="c-1")
    statement.write_text("id,promotion_goal_description\nc-2,KL-AAAAAAAAAAA2\n")

    code, text = run(statement)

    assert code == 1
    assert "booked twice: Booked as c-1 before, and as c-2 too." in text


def test_other_points_than_ours_are_loud(campaign: Any, statement: Path) -> None:
    CommitmentFactory(campaign=campaign, issued=True, trace_key="AAAAAAAAAAA2", remote_id="c-1")
    statement.write_text("id,promotion_goal_description,loyalty_units\nc-1,KL-AAAAAAAAAAA2,400\n")

    code, text = run(statement)

    assert code == 1
    assert "other points: 500 points here, 400 in the statement." in text


@pytest.mark.parametrize(
    ("trait", "label"),
    [
        ({}, "“Waiting”. Hold or cancel it, or it is booked twice."),
        ({"sending": True}, "“Being sent”. Hold or cancel it, or it is booked twice."),
        ({"refused": True}, "“Refused”."),
        ({"cancelled": True}, "“Cancelled”."),
    ],
    ids=["waiting", "being sent", "refused", "cancelled"],
)
def test_a_booking_of_what_should_not_be_there_is_loud(
    campaign: Any, statement: Path, trait: dict[str, Any], label: str
) -> None:
    row = CommitmentFactory(campaign=campaign, trace_key="AAAAAAAAAAA2", **trait)
    statement.write_text("id,promotion_goal_description\nc-1,KL-AAAAAAAAAAA2\n")

    code, text = run(statement, "--apply")

    before = row.status
    row.refresh_from_db()
    assert (code, row.status) == (1, before)
    assert f"koomalooma booked it, here it is {label}" in text


def test_a_code_and_an_id_of_different_commitments_are_loud(campaign: Any, statement: Path) -> None:
    in_doubt(campaign)
    in_doubt(campaign, "BBBBBBBBBBB2", remote_id="c-1")
    statement.write_text("id,promotion_goal_description\nc-1,KL-AAAAAAAAAAA2\n")

    code, text = run(statement, "--apply")

    assert (code, Decision.objects.count()) == (1, 0)
    assert "code and id do not fit: Code and id belong to different commitments" in text


def test_one_id_beside_two_codes_settles_neither(campaign: Any, statement: Path) -> None:
    in_doubt(campaign)
    in_doubt(campaign, "BBBBBBBBBBB2")
    statement.write_text("id,promotion_goal_description\nc-1,KL-AAAAAAAAAAA2\nc-1,KL-BBBBBBBBBBB2\n")

    code, text = run(statement, "--apply")

    assert (code, Decision.objects.count()) == (1, 0)
    assert text.count("The same id stands beside different codes.") == 2


def test_empty_ids_as_in_koomaloomas_own_sample_are_no_match(campaign: Any, statement: Path) -> None:
    CommitmentFactory.create_batch(2, campaign=campaign, issued=True, remote_id="")
    statement.write_text("id,loyalty_units\n,500\n")

    code, text = run(statement)

    assert code == 0
    assert "not ours: No commitment of ours has this code or id." in text


def test_what_is_unclear_and_not_in_the_statement_is_listed(campaign: Any, statement: Path) -> None:
    in_doubt(campaign, reference="A-1")
    statement.write_text("id\nc-9\n")

    code, text = run(statement)

    assert code == 0
    assert "1 unclear and not in this statement (does it cover their time?):" in text
    assert "KL-AAAAAAAAAAA2 A-1" in text


@pytest.mark.parametrize(
    ("data", "arguments", "words"),
    [
        (
            b"a,b\n1,2\n",
            ["--map", "c=trace_key"],
            "line 1, column 'c': there is no such column. There are 'a', 'b'.",
        ),
        (b"a,a\n1,2\n", ["--map", "a=trace_key"], "line 1, column 'a': the column is there twice."),
        (
            b"a,b\n1,2\n",
            ["--map", "a=reference"],
            "--map a=reference: 'reference' is none of commitment_id, ",
        ),
        (
            b"a,b\n1,2\n",
            ["--map", "a=trace_key", "b=trace_key"],
            "--map b=trace_key: trace_key is given twice.",
        ),
        (b"a,b\n1,2\n", ["--map", "a"], "--map a: write COLUMN=FIELD."),
        (b"a,b\n1,2\n", ["--map", "b=loyalty_units"], "line 1: say which column finds a commitment"),
        (b"a,b\n1,2\n", [], "line 1: say which column finds a commitment"),
        (b"id,b\nx,1\nx,\xe9\n", [], "line 3: not utf-8-sig. Name the encoding, as in --encoding cp1252."),
        (b"id,b\nx,1\n", ["--encoding", "klingon"], "--encoding klingon: there is no such encoding."),
        (b"id,b\nx,1\nx\n", [], "line 3: 1 columns where the header has 2."),
        (b'id,b\nx,"1\n', [], "line 2: unexpected end of data."),
        (
            b"id,loyalty_units\nx,1.5\n",
            [],
            "line 2, column 'loyalty_units': '1.5' is no whole number of points.",
        ),
        (b"id,loyalty_units\nx,-1\n", [], "line 2, column 'loyalty_units': '-1' is no whole number"),
        (b"", [], "the file is empty."),
        (b"id\nx\n", ["--delimiter", "ab"], "--delimiter 'ab': give one character."),
    ],
    ids=[
        "no such column",
        "column twice",
        "unknown field",
        "field twice",
        "no field",
        "nothing that finds",
        "no map",
        "bad encoding",
        "unknown encoding",
        "short line",
        "open quote",
        "points with a dot",
        "negative points",
        "empty file",
        "long delimiter",
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_line_and_column(
    statement: Path, data: bytes, arguments: list[str], words: str
) -> None:
    statement.write_bytes(data)

    with pytest.raises(CommandError) as failure:
        run(statement, *arguments)

    assert words in str(failure.value)
    if not words.startswith("--"):
        assert str(failure.value).startswith(str(statement))


def test_the_file_may_stand_behind_the_map(campaign: Any, statement: Path) -> None:
    row = in_doubt(campaign)
    statement.write_text("Code,Points\nAAAAAAAAAAA2,500\n")

    call_command(
        "koomalooma_reconcile", "--apply", "--map", "Code=trace_key", "Points=loyalty_units", str(statement),
        stdout=io.StringIO(),
    )  # fmt: skip

    row.refresh_from_db()
    assert (row.status, row.loyalty_units) == (CommitmentStatus.ISSUED, 500)


def test_without_a_file_the_command_says_how(statement: Path) -> None:
    with pytest.raises(CommandError, match=r"Which file\?"):
        call_command("koomalooma_reconcile", "--map", "Code=trace_key")


def test_a_file_that_is_not_there_is_told(statement: Path) -> None:
    with pytest.raises(CommandError, match=r"statement\.csv: No such file or directory\."):
        run(statement)


@pytest.mark.parametrize(
    ("data", "arguments"),
    [
        (
            "id;promotion_goal_description\r\nc-1;Bücher, zwei KL-AAAAAAAAAAA2\r\n".encode("cp1252"),
            ["--encoding", "cp1252"],
        ),
        ("\ufeffid,promotion_goal_description\n\nc-1,KL-AAAAAAAAAAA2\n\n".encode(), []),
        (b"id\tpromotion_goal_description\nc-1\tKL-AAAAAAAAAAA2\n", []),
        (b'id|promotion_goal_description\nc-1|"two\nlines KL-AAAAAAAAAAA2"\n', ["--delimiter", "|"]),
    ],
    ids=["Excel with semicolons", "byte order mark and blank lines", "tabs", "own delimiter"],
)
def test_the_usual_kinds_of_csv_are_read(
    campaign: Any, statement: Path, data: bytes, arguments: list[str]
) -> None:
    row = in_doubt(campaign)
    statement.write_bytes(data)

    run(statement, "--apply", *arguments)

    row.refresh_from_db()
    assert (row.status, row.remote_id) == (CommitmentStatus.ISSUED, "c-1")


def test_a_long_statement_takes_a_statement_of_sql_for_each_five_hundred_lines(
    campaign: Any, statement: Path, django_assert_max_num_queries: Any
) -> None:
    statement.write_text("id,promotion_goal_description\n" + "".join(f"c-{n},x\n" for n in range(1200)))

    with django_assert_max_num_queries(4):
        run(statement)
