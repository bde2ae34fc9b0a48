"""The Celery app of the proof; the shop's defaults are hostile on purpose, the task must bring its own."""

from __future__ import annotations

import json
import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.proof.settings")
django.setup()

app = Celery("proof", broker=os.environ.get("PROOF_BROKER", "memory://"))
app.conf.update(
    task_default_queue=os.environ.get("PROOF_QUEUE", "koo_proof"),
    task_acks_late=True,
    task_time_limit=None,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    **json.loads(os.environ.get("PROOF_CELERY", "{}")),
)
app.autodiscover_tasks(["django_koomalooma"], force=True)
if limits := os.environ.get("PROOF_LIMITS"):
    task = app.tasks["django_koomalooma.tasks.deliver_due"]
    task.soft_time_limit, task.time_limit = (float(limit) for limit in limits.split())
app.set_current()

from tests.proof import pace, points  # noqa: E402 - the points wrap what is loaded by now

pace.quicken()
points.arm(os.environ.get("PROOF_POINTS", ""))
