"""A module imports only from rows above it; edges never import each other; only apps.py imports edges."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_koomalooma

PACKAGE = Path(django_koomalooma.__file__).parent

# Rows from the top down; modules in one row do not import each other unless they stand in order.
ROWS: list[list[str]] = [
    ["statuses", "exceptions", "conf", "events", "signals"],
    ["wire", "transport", "endpoint", "client"],
    ["querysets", "models"],
    ["replies", "history", "policy", "wakeup", "deciding", "earning", "shops"],
    ["gate", "status", "alarms", "sender", "leasing", "recording", "delivery"],
    ["widget", "review", "reconcile", "overview", "audit", "sandbox"],
]
EDGES = ["tasks", "receivers", "admin", "rest", "checks", "templatetags", "management", "testing"]
ORDER = {module: number for number, module in enumerate(m for row in ROWS for m in row)}
WIRE = ROWS[1]


def parts() -> Iterator[tuple[str, Path]]:
    """Give each source file with the name of the part of the package that it belongs to."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] in ("migrations", "__init__.py"):
            continue
        yield relative.parts[0].removesuffix(".py"), path


def imports(path: Path) -> set[str]:
    """Return the parts of our package that a file imports, at run time, inside functions too."""
    found = set()
    depth = len(path.relative_to(PACKAGE).parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("django_koomalooma."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "django_koomalooma":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("django_koomalooma.")}
    return found - {"__version__"}


FILES = list(parts())
NAMES = [str(path.relative_to(PACKAGE)) for _, path in FILES]


def test_every_module_has_its_place() -> None:
    names = {part for part, _ in parts()}

    assert names - {"apps"} <= set(ORDER) | set(EDGES)


@pytest.mark.parametrize(("part", "path"), FILES, ids=NAMES)
def test_a_module_imports_only_from_rows_above_it(part: str, path: Path) -> None:
    wanted = imports(path) - {part}

    if part == "apps":
        assert wanted <= set(EDGES) | set(ORDER)
    elif part in EDGES:
        assert not wanted & set(EDGES)
    else:
        assert {name for name in wanted if ORDER.get(name, 999) >= ORDER[part]} == set()


@pytest.mark.parametrize("part", WIRE)
def test_the_wire_knows_neither_django_nor_celery(part: str) -> None:
    text = (PACKAGE / f"{part}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }

    assert not modules & {"django", "celery", "rest_framework"}


def test_the_sandbox_needs_nothing_but_the_standard_library() -> None:
    import sys

    for path in (PACKAGE / "sandbox").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize(("part", "path"), FILES, ids=NAMES)
def test_every_module_says_what_it_owns(part: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")

    assert not source.strip() or ast.get_docstring(ast.parse(source))
