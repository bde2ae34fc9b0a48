"""The mutants keep up with the source; ``python -m tests.proof.mutants`` lets them loose."""

from __future__ import annotations

from tests.proof.mutants import MUTANTS, misplaced


def test_each_mutant_finds_its_place_in_the_source_exactly_once() -> None:
    assert misplaced() == []


def test_there_is_a_mutant_for_each_of_the_thirteen_mistakes() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == 13
