"""Workers that are frozen past their lease, shut down, out of time, or killed: a child, or the whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_koomalooma.delivery import deliver_due
from django_koomalooma.models import Commitment
from django_koomalooma.querysets import database_now
from tests.proof import shop
from tests.proof.stage import Stage, until

pytestmark = pytest.mark.proof

CORE = "django_koomalooma"


def is_frozen(process: subprocess.Popen[str]) -> bool:
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] == "T"


def freeze(stage: Stage, point: str) -> subprocess.Popen[str]:
    """Run a delivery until it freezes at the point, and its lease is over."""
    stage.settings["KOOMALOOMA_READ_TIMEOUT"] = 20  # so that the lease is what ends
    process = stage.work("deliver", points=f"{point}:stop")
    until(lambda: process.poll() is not None or is_frozen(process), what="the freeze")
    assert process.poll() is None, process.communicate()
    until(lambda: Commitment.objects.abandoned(database_now("default")).exists(), what="the lease's end")
    return process


def thaw(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=20)


def test_a_worker_frozen_before_the_first_byte_does_not_send_after_its_lease(stage: Stage) -> None:
    shop.pay("FROZEN")
    process = freeze(stage, f"{CORE}.wire:WireCall.raise_flag:before:2")

    parked = deliver_due()
    thaw(process)

    row = Commitment.objects.get()
    assert (parked.abandoned, parked.leased) == (1, 0)
    first, second = row.attempts.all()
    assert (first.outcome, second.outcome, row.status) == ("not_sent", "answered", "issued")
    assert "ran out before the first byte" in first.error
    assert len(stage.sandbox.bookings()) == 1


def test_a_worker_frozen_before_the_first_byte_never_adds_to_a_person_s_decision(stage: Stage) -> None:
    shop.pay("FROZEN")
    process = freeze(stage, f"{CORE}.wire:WireCall.raise_flag:before:2")
    deliver_due()
    # What a person does by "send again": the lease is taken away, and the row waits.
    Commitment.objects.update(status="queued", lease=None, due_at=database_now("default"))
    deliver_due()

    thaw(process)
    stage.drain()

    assert Commitment.objects.get().status == "issued"
    assert len(stage.sandbox.bookings()) == 1


def test_a_late_proof_overrides_the_sweep_s_doubt(stage: Stage) -> None:
    shop.pay("FROZEN")
    process = freeze(stage, f"{CORE}.recording:Recording.record:before:1")
    deliver_due()
    doubt = Commitment.objects.get().status

    thaw(process)

    row = Commitment.objects.get()
    assert (doubt, row.status, row.loyalty_units) == ("in_doubt", "issued", 500)
    assert stage.check().broken == {}


@pytest.mark.parametrize("status", ["written_off", "cancelled", "issued", "refused"])
def test_a_late_proof_never_overrides_a_person(stage: Stage, status: str) -> None:
    shop.pay("FROZEN")
    process = freeze(stage, f"{CORE}.wire:WireCall.raise_flag:before:2")
    deliver_due()
    Commitment.objects.update(status=status, lease=None, due_at=None)

    thaw(process)

    row = Commitment.objects.get()
    assert (row.status, row.due_at, stage.sandbox.bookings()) == (status, None, [])


# -- real Celery workers


@pytest.fixture
def worker(stage: Stage, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a prefork worker of one child over a broker of files, and hand it one wake-up."""
    for folder in ("queue", "control"):
        (tmp_path / folder).mkdir()
    folders = {
        "data_folder_in": str(tmp_path / "queue"),
        "data_folder_out": str(tmp_path / "queue"),
        "control_folder": str(tmp_path / "control"),
    }
    options = {"broker_transport_options": {**folders, "polling_interval": 0.1}}
    environment = {"PROOF_BROKER": "filesystem://", "PROOF_CELERY": json.dumps(options)}

    def start(**more: str) -> subprocess.Popen[str]:
        sent = stage.start(
            "celery", "-A", "tests.proof.app", "call", f"{CORE}.tasks.deliver_due", **environment
        )
        assert sent.wait(20) == 0, sent.communicate()
        return stage.start(
            "celery", "-A", "tests.proof.app", "worker", "-P", "prefork", "-c", "1", "-l", "warning",
            "--without-gossip", "--without-mingle", "--without-heartbeat", **environment, **more,
        )  # fmt: skip

    return start


def await_call(stage: Stage) -> None:
    until(lambda: stage.sandbox.requests()["calls"].get("commitments"), 20, "the call")


def child_of(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[-1])


def slow(stage: Stage, **options: Any) -> None:
    """Let the one commitment's answer take 0.4 s: a call that is under way when something happens."""
    shop.pay("SLOW")
    stage.sandbox.misbehave("late_201", **{"seconds": 0.4, **options})


def test_a_warm_shutdown_finishes_and_records_what_is_in_flight(
    stage: Stage, worker: Callable[..., subprocess.Popen[str]]
) -> None:
    slow(stage)
    process = worker()
    await_call(stage)

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert Commitment.objects.get().status == "issued"
    assert stage.check().broken == {}


def test_a_soft_time_limit_records_what_is_in_flight_before_the_task_ends(
    stage: Stage, worker: Callable[..., subprocess.Popen[str]]
) -> None:
    stage.settings["KOOMALOOMA_READ_TIMEOUT"] = 5
    stage.settings["KOOMALOOMA_LEASE"] = 10
    slow(stage, seconds=1.5)

    worker(PROOF_LIMITS="1 9")
    await_call(stage)
    until(lambda: Commitment.objects.get().status != "sending", what="the record")

    assert Commitment.objects.get().status == "issued"
    assert stage.check().broken == {}


def test_a_hard_time_limit_leaves_it_in_doubt(
    stage: Stage, worker: Callable[..., subprocess.Popen[str]]
) -> None:
    stage.settings["KOOMALOOMA_READ_TIMEOUT"] = 5
    slow(stage, seconds=3)

    worker(PROOF_LIMITS="0.5 1")
    await_call(stage)
    time.sleep(1.2)
    stage.drain()

    assert Commitment.objects.get().status == "in_doubt"
    assert stage.check().broken == {}


@pytest.mark.parametrize("whom", ["child", "whole worker"])
def test_a_killed_prefork_worker_leaves_it_in_doubt_and_nobody_sends_it_again(
    stage: Stage, worker: Callable[..., subprocess.Popen[str]], whom: str
) -> None:
    slow(stage)
    process = worker()
    await_call(stage)

    if whom == "child":
        os.kill(child_of(process), signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    stage.drain()
    shop.pay("NEXT")
    stage.drain()

    assert dict(Commitment.objects.values_list("reference", "status")) == {
        "SLOW": "in_doubt", "NEXT": "issued"
    }  # fmt: skip
    assert stage.check().broken == {}
