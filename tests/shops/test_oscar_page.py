"""The page "Connect django-oscar", followed in a stock Oscar shop."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from .pages import ROOT, Follower, read_blocks

pytest.importorskip("oscar", reason="django-oscar is not installed; tox run -e oscar has it")


def test_the_page_leads_from_a_stock_shop_to_points_within_ten_minutes(tmp_path: Path) -> None:
    begun = time.monotonic()
    stock = (ROOT / "tests/shops/oscar_project/settings.py").read_text().partition("# The shop: euro")[0]
    stock = stock.replace('    "django_koomalooma",\n', "").replace(
        ":memory:", str(tmp_path / "shop.sqlite3")
    )
    (tmp_path / "settings.py").write_text(stock)
    person = Follower(tmp_path, "settings")

    try:
        person.follow(read_blocks("connect-oscar.rst"))
    finally:
        person.stop()

    with sqlite3.connect(tmp_path / "shop.sqlite3") as database:
        rows = database.execute(
            "SELECT reference, status, loyalty_units FROM koomalooma_commitment"
        ).fetchall()
    assert rows == [("100001", "issued", 50)]
    assert time.monotonic() - begun < 600
