"""Ids and their spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import ids


@given(st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=18, max_size=18)))
def test_an_id_is_read_back_as_it_was_spelled_in_either_case(identifier: bytes) -> None:
    assert ids.parse(ids.text(identifier)) == ids.parse(ids.text(identifier).lower()) == identifier


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_ids_sort_as_their_spellings_do(identifiers: list[bytes]) -> None:
    assert [ids.text(each) for each in sorted(identifiers)] == sorted(map(ids.text, identifiers))


@pytest.mark.parametrize(
    "word", ["", "0" * 25, "0" * 27, "8" + "0" * 25, "0" * 25 + "_", "+" + "0" * 25, "0" * 25 + "٣"]
)
def test_what_is_no_id_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="not a message id"):
        ids.parse(word)


@pytest.mark.parametrize("letter", "ILOU")
def test_letters_that_are_misread_are_in_no_id(letter: str) -> None:
    with pytest.raises(ValueError, match="not a message id"):
        ids.parse(letter.rjust(26, "0"))
