"""A process that earns or delivers, and may be killed at a point: ``python -m tests.proof.worker``."""

from __future__ import annotations

import json
import os
import sys
import time

import django


def main() -> int:
    """Arm the points of ``PROOF_POINTS``, do what the arguments say, print the outcome as JSON."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.proof.settings")
    django.setup()
    from django.contrib.auth import get_user_model

    from django_koomalooma.delivery import deliver_due
    from tests.proof import pace, points, shop

    command, *arguments = sys.argv[1:]
    pace.quicken()
    if os.environ.get("PROOF_BROKER"):
        from tests.proof import app  # noqa: F401 - makes it Celery's current app

    points.arm(os.environ.get("PROOF_POINTS", ""))
    match command:
        case "pay":
            print(shop.pay(arguments[0]).status)
        case "deliver":
            run = deliver_due()
            print(json.dumps({name: getattr(run, name) for name in run.__slots__}))
        case "sweep":
            while True:
                deliver_due(seconds=2)
                time.sleep(0.5)
        case "settle":
            from django_koomalooma import review
            from django_koomalooma.models import Commitment

            clerk, _ = get_user_model().objects.get_or_create(username="clerk")
            getattr(review, arguments[0])(Commitment.objects.get(), clerk, **json.loads(arguments[1]))
        case _:
            raise SystemExit(f"{command}: say pay, deliver or settle")
    return 0


if __name__ == "__main__":
    sys.exit(main())
