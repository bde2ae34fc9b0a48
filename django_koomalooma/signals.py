"""The signals that shops send to us, and those that we send to shops. Who listens is not known here."""

from __future__ import annotations

from django.dispatch import Signal

order_paid = Signal()
#: In: an order was paid (or another goal was reached). Arguments: ``event``, an
#: :class:`~django_koomalooma.events.EarningEvent`. Send it inside the order's transaction.

order_amended = Signal()
#: In: the order is now worth something else, after a refund in part. Arguments: ``goal``, ``reference``,
#: ``value`` (the new net value, a ``Decimal``) and, where the shop has several sites, ``site``.

order_cancelled = Signal()
#: In: the order was withdrawn. Arguments: ``goal``, ``reference``; optional ``reason`` and ``site``.

commitment_queued = Signal()
#: Out: points are owed. Sent when the shop's transaction has committed. Arguments: ``commitment``.

commitment_issued = Signal()
#: Out: koomalooma booked the points. Sent after the run's last record. Arguments: ``commitment``.

commitment_refused = Signal()
#: Out: koomalooma said no. Sent after the run's last record. Arguments: ``commitment``.

commitment_in_doubt = Signal()
#: Out: the points may have arrived; a person decides. Sent after the run's last record.
#: Arguments: ``commitment``.

queue_stopped = Signal()
#: Out: nothing is sent any more. Arguments: ``reason`` (a sentence) and ``code``.

queue_resumed = Signal()
#: Out: sending goes on. No arguments.
