"""The sandbox from the command line, the same for `manage.py koomalooma_sandbox` and `python -m`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .faults import describe
from .ledger import LedgerError
from .server import DEFAULT_PARTNER_ID, DEFAULT_TOKEN, Sandbox

DESCRIPTION = (
    "Serve a pretend koomalooma on this machine: it books points into a ledger, and misbehaves on order."
)
FAULT_HELP = (
    "faults for --misbehave NAME[:option=value,...]\n"
    "  besides its own options each takes times=N (default 1) or times=always, call=users|commitments|any\n"
    "  (default commitments), probability=0..1, and book=true|false to overrule whether it books\n\n"
    + describe()
)


class UsageError(Exception):
    """What was asked for cannot be served; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.epilog = FAULT_HELP.replace("%", "%%")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=8765, help="default 8765; if it is in use another one is taken"
    )
    parser.add_argument("--token", default=DEFAULT_TOKEN, help="the token to accept")
    parser.add_argument("--partner-id", default=DEFAULT_PARTNER_ID, help="the partner id to accept")
    parser.add_argument(
        "--ledger", metavar="PATH", help="file of the bookings, one JSON line each; without it in memory only"
    )
    parser.add_argument(
        "--strict",
        metavar="FILE",
        help='know only these campaigns (JSON): {"summer": {"percent": 5}, "hello": {"points": 250}}',
    )
    parser.add_argument(
        "--percent", type=float, default=5, help="what any campaign gives without --strict (default 5)"
    )
    parser.add_argument("--latency", type=float, default=0, help="seconds until each answer (default 0)")
    parser.add_argument("--daily-cap", type=int, metavar="POINTS", help="403 beyond it (UTC)")
    parser.add_argument("--monthly-cap", type=int, metavar="POINTS", help="403 beyond it (UTC)")
    parser.add_argument(
        "--misbehave",
        action="append",
        default=[],
        metavar="NAME[:k=v,...]",
        help="order a fault, see below; may be repeated",
    )
    parser.add_argument("--fast", action="store_true", help="do not force each booking to the disk")


def serve(
    options: dict[str, Any], write: Callable[[str], object], stop: threading.Event | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`.

    Args:
        options: the values of the arguments, by name.
        write: takes the lines for the person at the terminal.

    Raises:
        UsageError: an option cannot be used.
    """
    stop = stop or threading.Event()
    try:
        sandbox = Sandbox(
            options["host"],
            options["port"],
            token=options["token"],
            partner_id=options["partner_id"],
            ledger=options["ledger"],
            campaigns=_read_campaigns(options["strict"]) if options["strict"] else None,
            percent=options["percent"],
            latency=options["latency"],
            daily_cap=options["daily_cap"],
            monthly_cap=options["monthly_cap"],
            durable=not options["fast"],
        )
        for text in options["misbehave"]:
            name, settings = read_fault(text)
            sandbox.misbehave(name, **settings)
        with _noting_signals() as signals, sandbox:
            _introduce(sandbox, write)
            while not (signals or stop.wait(0.1)):
                pass
    except (ValueError, TypeError, LedgerError, OSError, OverflowError) as error:
        raise UsageError(str(error)) from error
    write(f"Sandbox stopped; its ledger holds {len(sandbox.bookings())} bookings.")


def read_fault(text: str) -> tuple[str, dict[str, Any]]:
    """Read `name:option=value,…`; values are JSON where they can be, and text otherwise.

    Raises:
        ValueError: an option has no value.
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        option, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--misbehave {text}: write {option}=value")
        try:
            settings[option] = json.loads(value)
        except ValueError:
            settings[option] = value
    if settings.get("times") == "always":
        settings["times"] = None
    return name, settings


def _introduce(sandbox: Sandbox, write: Callable[[str], object]) -> None:
    if sandbox.wanted_port not in (0, sandbox.port):
        write(f"Port {sandbox.wanted_port} is in use; taking {sandbox.port} instead.")
    write(f"A pretend koomalooma is serving on {sandbox.url}. Settings for the shop:")
    for name, value in sandbox.settings().items():
        write(f"{name} = {value!r}")
    write(f"Its ledger: {sandbox.control_url}ledger   Stop with Ctrl-C.")


def _read_campaigns(text: str) -> dict[str, object]:
    source = text if text.lstrip().startswith("{") else Path(text).read_text()
    campaigns = json.loads(source)
    if not isinstance(campaigns, dict):
        raise ValueError('--strict needs a JSON object: {"campaign id": {"percent": 5}}')
    return campaigns


@contextlib.contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM in a list; elsewhere than in the main thread signals cannot be had.

    Setting an event in a handler could wait for ever on the lock of the very wait that it interrupts.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: noted.append(number)) for number in numbers]
    try:
        yield noted
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
