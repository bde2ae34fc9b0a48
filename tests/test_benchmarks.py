"""The benchmarks run, and the page of the documentation is what they wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("benchmarks", reason="only where the source tree is")

from benchmarks import report
from benchmarks.figures import ratio, take_turns
from benchmarks.plot import Axis, Line, draw

ROOT = Path(__file__).resolve().parents[1]


def test_the_smallest_size_measures_delivery_and_checkout() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["KOOMALOOMA_TEST_POSTGRES"] = "postgres://nobody@127.0.0.1:9/none"  # SQLite is enough here

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smallest", "--only", "checkout", "drain"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    checkout, drain = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert checkout["sqlite"]["added"] == ["SAVEPOINT", "INSERT", "RELEASE"]
    assert drain["sqlite"]["windows"]["32"]["ratio"]["median"] > 0


def test_the_page_is_what_the_benchmarks_wrote() -> None:
    written = report.render(report.load())

    assert written["performance.rst"].startswith(report.MARK)
    for name, text in written.items():
        assert (ROOT / "docs" / name).read_text() == text, f"docs/{name}: tox run -e bench -- --render"


def test_each_plays_once_in_every_round_and_the_first_does_not_count() -> None:
    played: list[str] = []

    def play(name: str) -> float:
        played.append(name)
        return float(len(played))

    seen = take_turns({"a": lambda: play("a"), "b": lambda: play("b")}, 3)

    assert sorted(seen["a"] + seen["b"]) == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert [sorted(played[start : start + 2]) for start in range(0, 8, 2)] == [["a", "b"]] * 4


def test_a_ratio_is_the_median_of_its_pairs() -> None:
    figure = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])

    assert (figure.median, figure.low, figure.high) == (2.0, 1.5, 2.5)


def test_a_plot_is_an_svg_with_a_line_for_each_name() -> None:
    text = draw("Title", Axis("x"), Axis("y", is_log=True), [Line("one", [(0, 1), (10, 1000)])])

    svg = ElementTree.fromstring(text)
    lines = svg.findall("{http://www.w3.org/2000/svg}polyline")
    assert [line.get("points") for line in lines] == ["70.0,310.0 470.0,32.0"]
