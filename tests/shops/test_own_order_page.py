"""The page "Connect an Order model of your own", followed in a fresh project."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from .pages import Follower, read_blocks


def test_the_page_leads_from_a_fresh_project_to_points_within_ten_minutes(tmp_path: Path) -> None:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", tmp_path], check=True)
    subprocess.run([sys.executable, "-m", "django", "startapp", "shop"], cwd=tmp_path, check=True)
    with (tmp_path / "mysite/settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS += ["shop"]\n')
    (tmp_path / "shop/models.py").write_text("")
    # Without this the tables of the shop's own app would want a migration, which such a shop has already.
    (tmp_path / "shop/migrations/__init__.py").unlink()
    (tmp_path / "shop/migrations").rmdir()
    person = Follower(tmp_path, "mysite.settings")

    try:
        blocks = read_blocks("connect-own-order.rst")
        person.follow(blocks[:2])
        person.run("migrate", "--run-syncdb")
        person.follow(blocks[2:])
        status = person.run("koomalooma_status")
    finally:
        person.stop()

    with sqlite3.connect(tmp_path / "db.sqlite3") as database:
        rows = database.execute(
            "SELECT reference, status, loyalty_units FROM koomalooma_commitment ORDER BY id"
        ).fetchall()
    assert rows == [("2026-0001", "issued", 400), ("2026-0002", "cancelled", None)]
    assert "Signal shop.signals.review_approved (review, KOOMALOOMA_TRIGGERS[2])." in status
    assert time.monotonic() - begun < 600
