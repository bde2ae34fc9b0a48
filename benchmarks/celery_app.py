"""The Celery worker in which tasks are measured. Imports no models: Celery does once Django is set up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from celery import Celery

from benchmarks.api import ROOT

app = Celery("benchmarks", broker=os.environ.get("KOOMALOOMA_BENCH_BROKER", "memory://"))
app.conf.update(
    imports=["django_koomalooma.tasks", "benchmarks.worker"],
    task_default_queue="drain",
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)


@contextlib.contextmanager
def running(environment: dict[str, str], processes: int) -> Iterator[int]:
    """Start a prefork worker of so many processes, and yield its process id."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "celery", "-A", "benchmarks.celery_app", "worker", "-P", "prefork", "-c",
            str(processes), "-Q", "drain", "--without-gossip", "--without-mingle", "--without-heartbeat",
            "-l", "ERROR",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "benchmarks.settings"} | environment,
    )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
