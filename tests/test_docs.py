"""What README and docs claim: the settings, statuses, commands and samples are those of the code."""

from __future__ import annotations

import configparser
import importlib
import pkgutil
import re
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import django_koomalooma.management.commands as commands
from django_koomalooma.models import Commitment
from django_koomalooma.statuses import NEXT, CommitmentStatus
from tests.factories import CampaignFactory, UserFactory
from tests.settings_table import README, make_table, split_readme

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")


def code_blocks(language: str, text: str = TEXT) -> list[str]:
    """Return the code blocks of a language, without their indentation."""
    found = re.findall(rf"^( *)\.\. code-block:: {language}\n\n((?:\1   .*\n|\n)+)", text, flags=re.M)
    return [re.sub(rf"^{indent}   ", "", block, flags=re.M) for indent, block in found]


def test_the_settings_table_is_that_of_the_code() -> None:
    assert split_readme()[1].strip() == make_table().strip()


def test_the_first_code_stands_on_the_first_screen() -> None:
    assert TEXT.splitlines().index("   $ pip install django-koomalooma") < 25


def test_the_first_settings_are_six_lines_and_wire_a_shop() -> None:
    sample = code_blocks("python")[0]
    names: dict[str, Any] = {"INSTALLED_APPS": [], "os": SimpleNamespace(environ={})}

    exec(sample, names)

    assert len(sample.strip().splitlines()) == 6
    assert names["INSTALLED_APPS"] == ["django_koomalooma"]
    assert names["KOOMALOOMA_API_TOKEN"] == ""
    (trigger,) = names["KOOMALOOMA_TRIGGERS"]
    assert set(trigger["event"]) == {"reference", "user", "value", "refunded", "occurred_at"}


def test_the_beat_entry_names_the_task() -> None:
    from django_koomalooma.tasks import deliver_due

    names: dict[str, Any] = {}
    exec(code_blocks("python")[1], names)

    (entry,) = names["CELERY_BEAT_SCHEDULE"].values()
    assert entry["task"] == deliver_due.name
    assert entry["options"]["expires"] < entry["schedule"]


@pytest.mark.django_db
def test_the_signal_of_the_readme_earns() -> None:
    CampaignFactory()
    order = SimpleNamespace(number="R-1", total=Decimal("10.00"), user=UserFactory())

    exec(code_blocks("python")[2], {"Order": SimpleNamespace, "order": order})

    assert Commitment.objects.get().reference == "R-1"


def test_the_two_commands_are_environments_of_tox() -> None:
    commands = re.findall(r"tox run -e (\w+)", TEXT)
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")

    assert commands == ["demo", "test"]
    assert {f"testenv:{name}" for name in commands} <= set(tox.sections())


def test_every_command_of_the_readme_exists_and_every_command_is_in_it() -> None:
    there = {module.name for module in pkgutil.iter_modules(commands.__path__)}

    assert set(re.findall(r"koomalooma_[a-z]+", TEXT)) - {"koomalooma_user"} == there


def test_the_table_of_statuses_is_that_of_the_code() -> None:
    rows = re.findall(r"^``(\w+)`` +(\S.*?)  +\S.*?  +(\S.*)$", TEXT, flags=re.M)

    told = {name: (label.strip(), set(nexts.split(", "))) for name, label, nexts in rows}
    assert told == {
        status.value: (str(status.label), {then.value for then in NEXT[status]})
        for status in CommitmentStatus
    }


def test_every_page_that_is_named_exists() -> None:
    pages = set(re.findall(r"docs/[\w-]+\.rst", TEXT))

    assert {page for page in pages if not (ROOT / page).exists()} == set()


def test_what_is_documented_can_be_imported() -> None:
    for path in set(re.findall(r"``(django_koomalooma(?:\.\w+)+)", TEXT)):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")

    assert re.search(r"^Unreleased\n-+\n", text, flags=re.M)


@pytest.mark.parametrize("path", [*ROOT.glob("*.rst"), *ROOT.glob("docs/*.rst")], ids=lambda path: path.name)
def test_no_page_names_a_machine(path: Path) -> None:
    words = re.findall(r"(?<![\w.])/(?:home|root|work|Users|opt)/\S*", path.read_text(encoding="utf-8"))

    assert words == []
