"""Which units lie in the store, against a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.ids import UNIT_ID_BYTES
from mailfleet_router.decisions.spill.keys import ROW_BYTES, StoredKeys, Where

# Rows of nearly equal keys are where a match across two rows would be found.
keys = st.one_of(
    st.binary(min_size=UNIT_ID_BYTES, max_size=UNIT_ID_BYTES),
    st.integers(0, 40).map(lambda n: bytes([n % 2]) * (UNIT_ID_BYTES - 1) + bytes([n])),
)
chunks = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
steps = st.lists(st.tuples(st.sampled_from(["add", "get", "remove", "elsewhere"]), keys, chunks, st.integers(0, 255)))


@given(steps)
def test_it_is_a_dictionary(history: list[tuple[str, bytes, int, int]]) -> None:
    stored, model = StoredKeys(), dict[bytes, Where]()
    for step, key, chunk, hop in history:
        known = model.get(key)
        if step == "add" and known is None:
            stored.add(key, chunk, hop)
            model[key] = Where(chunk, hop)
        elif step == "remove":
            assert stored.remove(key) is (model.pop(key, None) is not None)
        elif step == "elsewhere":
            assert stored.remove(key, chunk) is (known is not None and known.chunk == chunk)
            if known is not None and known.chunk == chunk:
                del model[key]
        assert stored.get(key) == model.get(key)
        assert len(stored) == len(model)


def test_ten_thousand_keys_are_found_and_forgotten() -> None:
    stored = StoredKeys()
    units = [number.to_bytes(UNIT_ID_BYTES, "big") for number in range(10_000)]
    for number, key in enumerate(units):
        stored.add(key, number // 7, number % 256)
    assert all(stored.get(key) == (number // 7, number % 256) for number, key in enumerate(units))
    assert stored.get(b"x" * UNIT_ID_BYTES) is None
    assert all(stored.remove(key, number // 7) for number, key in enumerate(units))
    assert not stored


def test_a_row_has_23_bytes() -> None:
    assert ROW_BYTES == 23
