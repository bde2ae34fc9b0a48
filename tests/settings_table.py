"""Makes the README's table of settings from conf.py: ``python -m tests.settings_table`` writes it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from unittest import mock

from django_koomalooma import conf

README = Path(__file__).parent.parent / "README.rst"
_BEGINS, _ENDS = ".. settings table begins\n", ".. settings table ends\n"


def read_default(name: str) -> str:
    """Return the default of a setting as Python shows it."""
    with mock.patch.object(conf, "settings", object()):
        value = getattr(conf.conf, name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = (
        f"{value:_}"
        if isinstance(value, int) and not isinstance(value, bool) and value > 9999
        else repr(value)
    )
    return {"()": "[]", "''": '""'}.get(text, text.replace("'", '"'))


def make_table() -> str:
    """Return the settings as a definition list: name, default, docstring."""
    lines = []
    for name, value in vars(conf.Settings).items():
        if isinstance(value, property):
            manual = re.sub(r"\s+", " ", (value.__doc__ or "").strip())
            lines.append(f"``KOOMALOOMA_{name.upper()}`` = ``{read_default(name)}``")
            lines += textwrap.wrap(
                manual, 110, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False
            )
    return "\n".join(lines) + "\n"


def split_readme() -> tuple[str, str, str]:
    """Return what stands before the table, the table, and what stands behind it."""
    before, rest = README.read_text(encoding="utf-8").split(_BEGINS)
    table, after = rest.split(_ENDS)
    return before + _BEGINS, table, _ENDS + after


if __name__ == "__main__":
    head, _, tail = split_readme()
    README.write_text(f"{head}\n{make_table()}\n{tail}", encoding="utf-8")
