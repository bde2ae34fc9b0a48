"""Writes the results down: ``benchmarks/results.json``, and from it alone the page with its two plots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.api import ROOT
from benchmarks.plot import Axis, Line, draw

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.rst"
LATENCY_PLOT, TABLE_PLOT = "performance-latency.svg", "performance-tables.svg"
MARK = ".. Written by benchmarks (tox run -e bench); do not edit."
NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
FULL = 0.2  # a machine that is less idle has no core left for what one Python process would still do
Row = tuple[str, str, str, str]


def load() -> dict[str, Any]:
    """Return the results so far."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def save(results: dict[str, Any]) -> None:
    """Keep the results."""
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def write(results: dict[str, Any]) -> None:
    """Write the page and its plots."""
    for name, text in render(results).items():
        (PAGE.parent / name).write_text(text)


def render(results: dict[str, Any]) -> dict[str, str]:
    """Return the files of the documentation by name."""
    files = {PAGE.name: "\n".join(_page(results)) + "\n"}
    if "latency" in results:
        files[LATENCY_PLOT] = _plot_latency(results["latency"])
    if "leases" in results:
        files[TABLE_PLOT] = _plot_leases(results["leases"])
    return files


def _vendors(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for vendor, name in NAMES.items():
        if vendor in result:
            yield name, result[vendor]


def _times(figure: dict[str, float]) -> str:
    return f"{figure['median']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _verdict(value: float, reach: float, stretch: float | None = None, *, most: bool = True) -> str:
    def within(limit: float) -> bool:
        return round(value, 2) <= limit if most else round(value, 2) >= limit

    if stretch is not None and within(stretch):
        return "yes, and the stretch"
    return "yes" if within(reach) else "**no**"


def _page(results: dict[str, Any]) -> Iterator[str]:
    title = "What it costs, and how fast it delivers"
    yield from (MARK, "", title, "=" * len(title), "")
    yield from _prose("intro")
    yield from _table(
        ("What", "Result", "To reach", "Reached"),
        [row for part in PARTS for row in part(results)],
    )
    yield from _prose("notes")
    if "latency" in results:
        yield from _section("Delivery rate against latency")
        yield from (f".. image:: {LATENCY_PLOT}", "   :alt: Delivery rate against the latency of the API", "")
        yield from _latency_table(results["latency"])
    if "leases" in results:
        yield from _section("Leasing time against table size")
        yield from (f".. image:: {TABLE_PLOT}", "   :alt: Leasing time against the size of the table", "")
    if "lists" in results:
        yield from _section("The staff's list")
        yield from _page_table(results["lists"])
    yield from _section("Method")
    yield from _method(results)


def _section(title: str) -> Iterator[str]:
    yield from (title, "-" * len(title), "")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", "")
    for row in (head, *rows):
        for number, cell in enumerate(row):
            yield f"   {'* -' if number == 0 else '  -'} {cell}"
    yield ""


def _checkout(results: dict[str, Any]) -> Iterator[Row]:
    for name, one in _vendors(results.get("checkout", {})):
        figure = one["ratio"]
        added = ", ".join(one["added"])
        yield (
            f"An order saved and paid, with the app against without, {name}",
            f"{_times(figure)}; adds {added}",
            "at most 1.8; stretch 1.5", _verdict(figure["median"], 1.8, 1.5),
        )  # fmt: skip


def _broker(results: dict[str, Any]) -> Iterator[Row]:
    for _, faults in _vendors(results.get("broker", {})):
        for fault, one in faults.items():
            value = max(one["median"]["median"], one["worst"]["median"])
            yield (
                f"An order, broker dead ({fault.replace(' ', ', ', 1)}), against healthy",
                f"median {_times(one['median'])}, slowest of a block {_times(one['worst'])}",
                "at most 1.1", _verdict(value, 1.1),
            )  # fmt: skip


def _drain(results: dict[str, Any]) -> Iterator[Row]:
    for name, part in _vendors(results.get("drain", {})):
        reach = 0.8 if name == "PostgreSQL" else 1.0
        for window, one in sorted(part["windows"].items(), key=lambda item: int(item[0])):
            yield (
                f"A backlog at no latency, ``CONCURRENCY`` {window}, against a bare loop, {name}",
                f"{_times(one['ratio'])}; machine {one['idle']:.0%} idle",
                f"at least {reach}; stretch 1.2", _verdict(one["ratio"]["median"], reach, 1.2, most=False),
            )  # fmt: skip
            yield (
                f"Statements for each row of it, {name}", f"{one['statements']:.2f}",
                "at most 0.5; stretch 0.2", _verdict(one["statements"], 0.5, 0.2),
            )  # fmt: skip


def _celery(results: dict[str, Any]) -> Iterator[Row]:
    for name, one in _vendors(results.get("celery", {})):
        if "missing" in one:
            continue
        yield (
            f"A backlog in a Celery worker (one process), against a bare loop, {name}",
            _times(one["against_loop"]),
            "at least 0.7; stretch 1.2", _verdict(one["against_loop"]["median"], 0.7, 1.2, most=False),
        )  # fmt: skip
        yield (
            f"Against a Celery task for each commitment: rate, {name}", _times(one["against_tasks"]),
            "at least 10; stretch 15", _verdict(one["against_tasks"]["median"], 10, 15, most=False),
        )  # fmt: skip
        yield (
            f"Against a Celery task for each commitment: CPU of the worker, {name}", _times(one["cpu"]),
            "at most 0.17", _verdict(one["cpu"]["median"], 0.17),
        )  # fmt: skip


def _latency(results: dict[str, Any]) -> Iterator[Row]:
    for name, one in _vendors(results.get("latency", {})):
        for point in one["points"]:
            if point["latency"] not in (0.02, 0.1) or point["window"] != 32:
                continue
            part, wait = point["rate"]["median"] / point["ideal"], f"{point['latency'] * 1000:g} ms"
            reached = _verdict(part, 0.8, 0.9, most=False)
            if part < 0.8 and point["idle"] < FULL:
                reached = "the CPU is full"
            yield (
                f"Delivery at {wait}, 32 in flight, as a part of 32 / {wait}, {name}",
                f"{part:.2f}; one core {point['busy']:.0%} busy, machine {point['idle']:.0%} idle",
                "at least 0.8 until the CPU is full; stretch 0.9",
                reached,
            )  # fmt: skip
            if point["latency"] == 0.1:
                yield (
                    f"Statements for each row at {wait}, {name}", f"{point['statements']:.2f}",
                    "at most 3; stretch 1", _verdict(point["statements"], 3, 1),
                )  # fmt: skip


def _leases(results: dict[str, Any]) -> Iterator[Row]:
    for name, one in _vendors(results.get("leases", {})):
        for kind, text, reach in (("lease_empty", "nothing due", 1.5), ("lease_due", "100 due", 3.0)):
            sizes = sorted(one[kind].items(), key=lambda item: int(item[0]))
            for number, figures in sizes[1:]:
                yield (
                    f"A lease from {int(number):,} rows, {text}, against {int(sizes[0][0]):,}, {name}",
                    _times(figures["ratio"]), f"at most {reach}; stretch 1.5",
                    _verdict(figures["ratio"]["median"], reach, 1.5),
                )  # fmt: skip


def _lists(results: dict[str, Any]) -> Iterator[Row]:
    for name, one in _vendors(results.get("lists", {})):
        view, page = max(one["pages"].items(), key=lambda item: float(item[1]["ratio"]["median"]))
        yield (
            f"The staff's list over {one['listed']:,} rows against 200, its worst view ({view}), {name}",
            _times(page["ratio"]), "at most 1.3; stretch 1.1", _verdict(page["ratio"]["median"], 1.3, 1.1),
        )  # fmt: skip
        most = max(page["statements"] for page in one["pages"].values())
        yield (f"Statements of such a view, {name}", str(most), "at most 4", _verdict(most, 4))


def _runs(results: dict[str, Any]) -> Iterator[Row]:
    one = results.get("runs", {})
    if "four" in one:
        yield (
            f"Worker processes at 20 ms, {one['window']} in flight each, against one, PostgreSQL",
            f"two {_times(one['two'])}, four {_times(one['four'])}; seen to wait for rows: {one['waits']}",
            "adds up until the CPU is full", _verdict(one["two"]["median"], 1.6, most=False),
        )  # fmt: skip


def _memory(results: dict[str, Any]) -> Iterator[Row]:
    for name, one in _vendors(results.get("memory", {})):
        yield (
            f"Memory of a run over {one['rows']:,} rows, more than after its first thousand, {name}",
            f"{one['growth']:.1f} MiB", "at most 10 MiB", _verdict(one["growth"], 10),
        )  # fmt: skip


def _setup(results: dict[str, Any]) -> Iterator[Row]:
    if one := results.get("setup"):
        seconds, mib = one["seconds"]["median"] * 1000, one["mib"]["median"]
        yield ("``django.setup()`` with the app, more than without", f"{seconds:.0f} ms", "at most 15 ms",
               _verdict(seconds, 15))  # fmt: skip
        yield ("The same: memory", f"{mib:.1f} MiB", "at most 4 MiB", _verdict(mib, 4))


PARTS = (_checkout, _broker, _drain, _celery, _latency, _leases, _lists, _runs, _memory, _setup)


def _latency_table(result: dict[str, Any]) -> Iterator[str]:
    yield from _table(
        ("Database", "Latency", "In flight", "Part of the ideal", "Core busy", "Machine idle", "Statements"),
        [
            (
                name, f"{point['latency'] * 1000:g} ms", str(point["window"]),
                f"{point['rate']['median'] / point['ideal']:.2f}" if point["ideal"] else "-",
                f"{point['busy']:.0%}", f"{point['idle']:.0%}", f"{point['statements']:.2f}",
            )
            for name, one in _vendors(result) for point in one["points"]
        ],
    )  # fmt: skip
    yield from (
        "A Python process is full where a core is busy; everything is where the machine is hardly idle: the",
        "API, the database and other programs run on the same cores.",
        "",
    )


def _page_table(result: dict[str, Any]) -> Iterator[str]:
    for name, one in _vendors(result):
        yield from (f"The staff's list over {one['listed']:,} rows against 200, {name}:", "")
        yield from _table(
            ("View", "Rows shown", "Time", "Statements"),
            [
                (view, str(page["shown"]), _times(page["ratio"]), str(page["statements"]))
                for view, page in one["pages"].items()
            ],
        )


def _prose(name: str) -> Iterator[str]:
    yield from (*(ROOT / "benchmarks" / f"{name}.rst").read_text().splitlines(), "")


def _method(results: dict[str, Any]) -> Iterator[str]:
    machine = results.get("machine", {})
    limit = max((one["limit"] for _, one in _vendors(results.get("drain", {}))), default=0.0)
    versions = ", ".join(f"{name} {number}" for name, number in sorted(machine.get("versions", {}).items()))
    sizes = sorted({f"{part['size']} ({name})" for name, part in results.items() if "size" in part})
    loads = sorted(part["load"] for part in results.values() if "load" in part)
    yield from (ROOT / "benchmarks" / "method.rst").read_text().splitlines()
    yield from (
        "- The API is a local process that answers at once with all fifteen fields of a Commitment; its own",
        f"  limit was {round(limit, -2):,.0f} answers a second to bare sockets.",
        f"- Machine: {machine.get('cores', '?')} cores, {machine.get('system', '?')}; {versions}.",
        f"- Sizes: {', '.join(sizes)}.",
        "- Other programs were running: the load of the machine before each part was between"
        f" {loads[0] if loads else 0} and {loads[-1] if loads else 0}.",
    )


def _plot_latency(result: dict[str, Any]) -> str:
    lines = []
    for name, one in _vendors(result):
        points = [point for point in one["points"] if point["window"] == 32]
        lines.append(Line(name, [(1000 * p["latency"], p["rate"]["median"]) for p in points]))
    ideal = [(1000 * p["latency"], p["ideal"]) for p in points if p["latency"] >= 0.02]
    return draw(
        "Delivery rate, 32 in flight",
        Axis("latency of the API, ms"),
        Axis("commitments a second"),
        [*lines, Line("32 / latency", ideal, is_dashed=True)],
    )


def _plot_leases(result: dict[str, Any]) -> str:
    lines = [
        Line(
            f"{name}, {text}",
            [(int(number), one["milliseconds"]) for number, one in found[kind].items()],
        )
        for name, found in _vendors(result)
        for kind, text in (("lease_empty", "empty"), ("lease_due", "100 due"))
    ]
    return draw("One lease", Axis("rows in the table", is_log=True), Axis("ms", is_log=True), lines)
