"""Prepare a tree that tests the installed wheel: check what is installed, then copy the tests, but not the
package, into the present directory. Usage: wheel_tree.py SOURCE_TREE"""

import shutil
import sys
from pathlib import Path

PACKAGE = "django_koomalooma"
NEEDED = ("tests", "example_project", "benchmarks", "docs", ".ci")
FILES = ("setup.cfg", "pyproject.toml", "tox.ini", "MANIFEST.in", "LICENSE")
TEXTS = ("README.rst", "CHANGELOG.rst", "CONTRIBUTING.rst")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".run", "*.sqlite3*")


def files_of(folder: Path) -> set[str]:
    """Return the files of a package, without what Python wrote itself."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def main(source: Path) -> int:
    """Compare, copy, and say what was found."""
    import django_koomalooma

    installed = Path(django_koomalooma.__file__).resolve().parent
    if installed.is_relative_to(source / PACKAGE) or "site-packages" not in installed.parts:
        print(f"{PACKAGE} comes from {installed}, not from the wheel.")
        return 1
    missing = files_of(source / PACKAGE) - files_of(installed)
    surplus = files_of(installed) - files_of(source / PACKAGE)
    beside = [
        name for name in ("tests", "example_project", "benchmarks") if (installed.parent / name).exists()
    ]
    if missing or surplus or beside:
        print(f"The wheel lacks {sorted(missing)}, has {sorted(surplus)} too much, and brings {beside}.")
        return 1
    target = Path.cwd()
    for old in target.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for name in NEEDED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=IGNORED)
    for name in FILES + TEXTS:
        if (source / name).exists():
            shutil.copy2(source / name, target / name)
    print(f"The wheel holds all {len(files_of(installed))} files of {PACKAGE}, and nothing else.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
