"""The mutants keep up with the source; ``python -m tests.proof.mutants`` lets them loose."""

from __future__ import annotations

import pytest

from tests.proof.mutants import MUTANTS, ROOT, misplaced

pytestmark = pytest.mark.proof  # they read the source, which a test of the wheel does not have


def test_each_mutant_finds_its_place_in_the_source_exactly_once() -> None:
    assert misplaced() == []


def test_the_page_on_the_proof_names_each_mutant() -> None:
    page = (ROOT / "docs" / "proof.rst").read_text()

    assert [mutant.name for mutant in MUTANTS if f"\n{mutant.name:<41}" not in page] == []


def test_there_is_a_mutant_for_each_of_the_thirteen_mistakes() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == 13
