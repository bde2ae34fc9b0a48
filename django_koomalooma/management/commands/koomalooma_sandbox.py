"""`manage.py koomalooma_sandbox`: a pretend koomalooma on this machine; the work is done in sandbox/."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_koomalooma.sandbox.cli import DESCRIPTION, UsageError, add_arguments, serve


class Command(BaseCommand):
    """Serve the sandbox until Ctrl-C."""

    help = DESCRIPTION
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            serve(options, self._write)
        except UsageError as error:
            raise CommandError(str(error)) from error

    def _write(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
