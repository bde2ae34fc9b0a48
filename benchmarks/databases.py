"""Databases of our own, made for one run and dropped after it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests import services


def available() -> list[str]:
    """Return the databases that can be measured here."""
    return ["sqlite"] if services.no_postgres() else ["postgresql", "sqlite"]


@contextlib.contextmanager
def made(vendor: str, label: str = "") -> Iterator[str]:
    """Yield the address of an empty database."""
    if vendor == "sqlite":
        with tempfile.TemporaryDirectory(prefix="koo_bench_") as folder:
            yield f"sqlite:///{Path(folder) / 'bench.sqlite3'}"
        return
    import psycopg  # only where PostgreSQL is measured
    from psycopg import sql

    name = f"koo_bench_{os.getpid()}{label}"
    with psycopg.connect(services.POSTGRES, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlunsplit(urlsplit(services.POSTGRES)._replace(path=f"/{name}"))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
