"""Tells a Celery worker that something is due, without ever holding up the shop.

The checkout raises a flag; one daemon thread per process talks to the broker. A wake-up may be lost (dead
broker, killed process, a server without threads): the table is the queue, and the sweep delivers.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from types import SimpleNamespace
from typing import Any, Final

from celery import Celery, current_app
from django.db import transaction

from .conf import conf

logger = logging.getLogger(__name__)

TASK: Final = "django_koomalooma.tasks.deliver_due"
TIMEOUT = 0.2  #: seconds to connect, and for each read and write: nothing else bounds a dead broker
QUIET = 1.0  #: seconds without a second wake-up; what comes meanwhile is told at their end
BACK_OFF = 30.0  #: seconds without an attempt after one that failed
FAREWELL = 1.0  #: seconds at most that an ending process waits for its last wake-up, imports included


def after_commit(using: str) -> None:
    """Wake a worker once the transaction of this database alias has committed; a rollback wakes nobody.

    Never raises. A plain function is registered: Django 5.2 fails after the commit on a partial.
    """
    try:
        transaction.on_commit(notify, using=using)
    except Exception as exc:  # noqa: BLE001 - the shop's order matters more than our wake-up
        logger.warning("No wake-up is registered (%s); the sweep delivers.", type(exc).__name__)


def notify() -> None:
    """Ask for a wake-up; it takes microseconds, whatever the broker does. Never raises."""
    try:
        if conf.wake_up:
            # One herald for each process, and none from before a fork, whose thread and locks died with it.
            # setdefault is atomic: two threads of a new process agree on one.
            pid = os.getpid()
            (_heralds.get(pid) or _heralds.setdefault(pid, _Herald())).call()
    except Exception as exc:  # noqa: BLE001 - the order is committed: it must not become an error page
        logger.warning("No wake-up is sent (%s); the sweep delivers.", name_error(exc))


def publish(app: Celery | None = None) -> bool:
    """Send one wake-up over a connection of its own, with bounded time-outs and no retries.

    Args:
        app: The shop's Celery app; by default the current one of this thread.

    Returns:
        Whether a wake-up was sent, which does not prove that it arrives. False also where none is wanted:
        Celery has no broker, or runs tasks eagerly, which would call koomalooma inside the request.
    """
    try:
        app = app or current_app._get_current_object()
        if not conf.wake_up or app.conf.task_always_eager or not app.conf.broker_write_url:
            return False
        with app.connection_for_write(connect_timeout=TIMEOUT) as connection:
            _bound(connection)
            app.send_task(
                TASK,
                kwargs={"sweep": False},
                connection=connection,
                ignore_result=True,
                result_cls=_no_result,
                serializer="json",
                retry=False,
            )
    except Exception as exc:  # noqa: BLE001 - broker, network, the shop's Celery settings and signal receivers
        logger.warning("A wake-up could not be sent (%s); the sweep delivers.", name_error(exc))
        return False
    return True


def is_reachable(app: Celery | None = None) -> bool:
    """Tell whether the broker takes a connection, in the same bounded time. Sends nothing; never raises."""
    try:
        app = app or current_app._get_current_object()
        if not app.conf.broker_write_url:
            return False  # Celery would dial its default, localhost
        with app.connection_for_write(connect_timeout=TIMEOUT) as connection:
            _bound(connection)
    except Exception:  # noqa: BLE001 - as in publish: whatever it is, it is not reachable
        return False
    return True


def name_error(exc: Exception) -> str:
    """Return the class of what went wrong, and of a failed import the message, which names the module.

    No other message: those about a bad broker URL quote its password.
    """
    cause = exc.__cause__ or exc
    name = type(cause).__name__
    return f"{name}: {cause}" if isinstance(cause, ImportError) else name


def _bound(connection: Any) -> None:
    """Put our time-outs over the shop's own options, and open the connection under them."""
    options: dict[str, dict[str, Any]] = {
        "redis": {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT, "retry_on_timeout": False},
        "amqp": {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "write_timeout": TIMEOUT},
    }
    # By transport, since others (SQLAlchemy) fail on an option they do not know.
    connection.transport_options.update(options.get(connection.transport.driver_type, {}))
    # No retry, but each broker of a list once: else a dead first one would silence us for good.
    connection.ensure_connection(max_retries=max(len(connection.alt) - 1, 0))
    if connection.transport.driver_type == "amqp":
        # py-amqp repeats a read that timed out inside a frame for ever, unless the socket has the limit too.
        connection.connection.sock.settimeout(TIMEOUT)


def _no_result(task_id: str) -> SimpleNamespace:
    """Stand in for Celery's result, which would load the shop's result backend, whatever state it is in."""
    return SimpleNamespace(id=task_id)


class _Herald:
    """The thread of one process that publishes at most once in `QUIET` seconds, the last request included."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._wanted = self._leaving = False
        self._app: Celery | None = None

    def call(self) -> None:
        with self._changed:
            # Taken here, since Celery's current app belongs to the thread of the shop.
            self._app = current_app._get_current_object()
            if not self._wanted:
                self._wanted = True
                self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="koomalooma-wakeup", daemon=True)
                self._thread.start()
                atexit.register(self._leave)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._leaving)
                if not self._wanted:
                    return
                self._wanted = False  # before publishing: what is committed from now on is told next time
            sent = publish(self._app)
            with self._changed:
                leaving = self._changed.wait_for(lambda: self._leaving, QUIET if sent else BACK_OFF)
            if leaving and not sent:
                return

    def _leave(self) -> None:
        """Tell what is still untold, for a moment only; a command that has just earned ends here."""
        if self._thread is not None and self._pid == os.getpid():
            with self._changed:
                self._leaving = True
                self._changed.notify_all()
            self._thread.join(FAREWELL)


_heralds: dict[int, _Herald] = {}
