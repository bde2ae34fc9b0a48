"""What our commands say when the database is down or not migrated: a sentence instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import InterfaceError, OperationalError, ProgrammingError


def say_unreadable(error: Exception) -> str:
    """Return the sentence. Of the error its class only: a driver's message may quote the password."""
    return f"The tables cannot be read ({type(error).__name__}). Is the database up, and migrated?"


@contextmanager
def needs_tables() -> Iterator[None]:
    """End a command in a sentence where its tables cannot be read; ``--traceback`` shows the rest."""
    try:
        yield
    except (InterfaceError, OperationalError, ProgrammingError) as error:
        raise CommandError(say_unreadable(error)) from error
