"""Shortens what is minutes in a shop, so that a proof of minutes sees many outages."""

from __future__ import annotations

import datetime as dt
import os


def quicken() -> None:
    """Scale the gate's probes and run slots down, where ``PROOF_PACE`` says so (seconds of a slot)."""
    seconds = os.environ.get("PROOF_PACE")
    if seconds:
        from django_koomalooma import gate

        gate.PROBE_MINUTES = (0.01, 0.01, 0.02)  # type: ignore[assignment]  # fractions only here
        gate.RUN_SLOT = dt.timedelta(seconds=float(seconds))
