"""The example shop with one command: database, sandbox, worker with beat, web server and shoppers, and a
table that shows how the points follow. `--once` stops by itself and compares it with the sandbox's ledger."""

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from demo_parts.processes import BUSY_GRACE, IDLE_GRACE, Child, ChildDied, Children, wait_for_file
from demo_parts.sandbox import start_sandbox
from demo_parts.shoppers import ERRANDS, run_errand

HERE = Path(__file__).resolve().parent
START_SECONDS = 60.0
SETTLE_SECONDS = 90.0
SWEEP_SECONDS = 5


class Ended(BaseException):
    """Somebody has asked the demo to end."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the table; exit 0 only if it agrees")
    parser.add_argument("--port", type=int, default=8000, help="the shop's port (default 8000)")
    parser.add_argument("--sandbox-port", type=int, default=8765, help="the sandbox's port (default 8765)")
    parser.add_argument(
        "--data-dir", type=Path, help="keep everything in this folder; default: a passing one"
    )
    parser.add_argument(
        "--misbehave",
        action="append",
        default=[],
        metavar="FAULT",
        help="a fault of the sandbox",
    )
    return parser.parse_args()


@contextlib.contextmanager
def data_folder(wanted: Path | None) -> Iterator[Path]:
    """Give a folder to work in; a temporary one is removed at the end."""
    if wanted:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="koomalooma-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def children_in(folder: Path) -> Iterator[Children]:
    """Give the child processes, and end every one of them however this ends."""

    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, frame: FrameType | None) -> None:
        # tox and an impatient finger send Ctrl-C twice; the second must not stop the cleaning up.
        for stop in stops:
            signal.signal(stop, signal.SIG_IGN)
        raise Ended

    before = {number: signal.signal(number, end) for number in stops}
    children = Children(folder)
    try:
        yield children
    finally:
        for number in stops:
            signal.signal(number, signal.SIG_IGN)
        children.end()
        forget_queue()
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare_environment(folder: Path, suffix: str) -> None:
    """Set what this process and its children share; the caller's DATABASE_URL and broker stay."""
    os.environ.update(
        DJANGO_SETTINGS_MODULE="example.settings",
        EXAMPLE_DATA_DIR=str(folder),
        EXAMPLE_QUEUE=f"koomalooma-demo-{suffix}",
        EXAMPLE_COOKIE_PREFIX=f"demo-{suffix}-",
        EXAMPLE_SWEEP_SECONDS=str(SWEEP_SECONDS),
        PYTHONPATH=os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        PYTHONUNBUFFERED="1",
        # What a killed worker leaves in its temporary folder goes with ours.
        TMPDIR=str(folder),
    )


def prepare_database() -> None:
    """Migrate and fill the database."""
    import django  # Imported here and below: Django reads the environment that was just prepared.
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    call_command("seed_shop")


def start_worker(children: Children) -> Child:
    """Start the Celery worker with beat inside."""
    options = ["-B", "--concurrency=1", "--loglevel=INFO"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = [sys.executable, "-m", "celery", "--app=example", "worker", *options, *quiet]
    return children.start("worker", command, os.environ)


def start_shop(children: Children, folder: Path, port: int) -> str:
    """Start the web server and return its address."""
    announcement = folder / "shop.url"
    announcement.unlink(missing_ok=True)
    manage = str(HERE / "manage.py")
    command = [sys.executable, manage, "serve", f"--port={port}", f"--announce={announcement}"]
    children.start("web server", command, os.environ)
    url = wait_for_file(announcement, children, START_SECONDS)
    if f":{port}/" not in url and port:
        print(f"Port {port} is in use by something else. The shop takes another one.")
    return url


def forget_queue() -> None:
    """Take this run's queue away from a broker that outlives the demo."""
    if not os.environ.get("CELERY_BROKER_URL") or "EXAMPLE_QUEUE" not in os.environ:
        return
    from kombu.exceptions import OperationalError

    from example.celery import app

    with (
        contextlib.suppress(OperationalError, OSError),
        app.connection_for_write(connect_timeout=2) as connection,
    ):
        for queue in app.amqp.queues.values():
            queue(connection).delete()


def show(url: str, sandbox_url: str, folder: Path) -> None:
    """Print where everything is."""
    print(f"""
  Shop      {url}
  Admin     {url}admin/   name: admin   password: admin
  Points    {url}admin/koomalooma/commitment/
  Sandbox   {sandbox_url}/_sandbox/ledger
  Logs      {folder}
""")


def play(options: argparse.Namespace, folder: Path, children: Children) -> int:
    """Run the demo; return the exit code."""
    suffix = secrets.token_hex(3)
    prepare_environment(folder, suffix)
    faults = [f"--misbehave={fault}" for fault in options.misbehave]
    sandbox = start_sandbox(children, folder, options.sandbox_port, faults, START_SECONDS)
    os.environ.update(sandbox.settings)
    prepare_database()
    from demo_parts.table import LiveTable, Since, differences, rows

    since = Since.now()
    worker = start_worker(children)
    url = start_shop(children, folder, options.port)
    show(url, sandbox.url, folder)
    table = LiveTable()

    def look() -> bool:
        """Show the table as it is now; return whether nothing waits to be sent any more."""
        children.check()
        bookings = sandbox.ledger()
        settled = since.is_settled()
        table.show(rows(since, bookings))
        children.grace = IDLE_GRACE if settled else BUSY_GRACE
        return settled

    for errand in ERRANDS:
        run_errand(url, errand, f"-{suffix}" if os.environ.get("DATABASE_URL") else "")
        look()
    deadline = time.monotonic() + SETTLE_SECONDS
    while not (settled := look()) and time.monotonic() < deadline:
        time.sleep(0.25)
    bookings = sandbox.ledger()
    table.show(rows(since, bookings))
    if options.once:
        print()
        table.print(rows(since, bookings))
    agree = report(differences(since, bookings), bookings)
    if not settled:
        print(f"Some points were not sent within {SETTLE_SECONDS:.0f} s. The worker says:")
        print("\n".join(worker.log.read_text(errors="replace").splitlines()[-20:]))
    if options.once:
        return 0 if agree and settled else 1
    print("Order something yourself: the table goes on. Ctrl-C ends it.\n", flush=True)
    table.height = 0
    while True:
        time.sleep(1)
        look()


def report(found: list[str], bookings: list[dict[str, object]]) -> bool:
    """Say whether shop and ledger agree, and return it."""
    for sentence in found:
        print(f"DIFFERENCE: {sentence}")
    if found:
        return False
    points = sum(int(str(booking["loyalty_units"])) for booking in bookings)
    print(f"\nThe shop and the ledger agree: {len(bookings)} bookings, {points} points.")
    return True


def main() -> int:
    """Run the demo and clean up after it."""
    options = arguments()
    started = time.monotonic()
    code = 1
    with data_folder(options.data_dir) as folder:
        try:
            with children_in(folder) as children:
                code = play(options, folder, children)
        except Ended:
            print("\nThe shop is closed.")
            code = 1 if options.once else 0
        except (ChildDied, TimeoutError) as error:
            print(f"\n{error}")
    print(f"Nothing is left running. {time.monotonic() - started:.1f} s.")
    return code


if __name__ == "__main__":
    sys.exit(main())
