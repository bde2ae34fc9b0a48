"""Serve the shop on loopback for a demonstration, and say which address it got. Not for a real shop."""

import errno
import signal
from argparse import ArgumentParser
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management.base import BaseCommand
from django.core.servers.basehttp import WSGIRequestHandler, WSGIServer
from django.core.wsgi import get_wsgi_application

HOST = "127.0.0.1"


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """One thread per connection; none of them outlives the process."""

    daemon_threads = True


def bind(port: int) -> ThreadedServer:
    """Return a server on the port, or on any free one when somebody else has it."""
    try:
        return ThreadedServer((HOST, port), WSGIRequestHandler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return ThreadedServer((HOST, 0), WSGIRequestHandler)


class Command(BaseCommand):
    """Bind first, then tell: nobody can take the port in between."""

    help = "Serve the shop on 127.0.0.1; takes another port when the wanted one is in use."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the wanted port and the file that gets the address."""
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--announce", type=Path, help="Write the shop's address into this file.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until a signal ends the process."""
        # Started in the background, a process may have inherited "ignore".
        signal.signal(signal.SIGINT, signal.default_int_handler)
        wanted: int = options["port"]
        server = bind(wanted)
        port = server.server_address[1]
        if wanted not in (port, 0):
            self.stdout.write(f"Port {wanted} is in use. Taking {port} instead.")
        server.set_app(StaticFilesHandler(get_wsgi_application()))
        url = f"http://{HOST}:{port}/"
        self.stdout.write(f"The shop is open at {url}")
        if options["announce"]:
            part = options["announce"].with_suffix(".part")
            part.write_text(url)
            part.rename(options["announce"])
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            self.stdout.write("The shop is closed.")
