"""Its signals, and a dict of signals as some packages have."""

from __future__ import annotations

from django.dispatch import Signal

paid = Signal()
HOOKS = {"invoice.paid": Signal(), "invoice.failed": Signal()}
