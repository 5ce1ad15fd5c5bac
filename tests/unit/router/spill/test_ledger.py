"""The fold of a partition whose units do not fit into memory, against one whose units do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.ids import UNIT_ID_BYTES
from mailfleet_core.model.tags import ATTEMPT, CLAIM, DONE, PUT, RETRY, tag
from mailfleet_router.decisions.ledger import Ledger
from mailfleet_router.decisions.site_queue import FOLDED, Held
from mailfleet_router.decisions.spill.space import Room, Spill
from support.spaces import DictSpace, Tight

records = st.lists(
    st.tuples(
        st.sampled_from([PUT, PUT, ATTEMPT, ATTEMPT, RETRY, RETRY, DONE, CLAIM]),
        st.integers(0, 2),
        st.sampled_from([0, 0, 0, 1, 2]),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([True, True, True, False]),
    ),
    min_size=10,
    max_size=40,
)


def taken_up(ledger: Ledger) -> dict[bytes, tuple[bytes, bytes, int]]:
    """What `Partition` finds: units in flight at once, the others as they come out of `folded`."""
    found: list[Held] = [held for held in ledger.units.values() if held.kind == ATTEMPT]
    in_flight = {held.key for held in found}
    for held in ledger.folded.clear():
        if held.state == FOLDED and ledger.units.get(held.key) is held and held.key not in in_flight:
            held.state = -1
            found.append(held)
    assert len({held.key for held in found}) == len(found)
    return {held.key: (held.raw, held.kind, held.hop) for held in found}


@given(records, st.booleans())
def test_where_units_lie_changes_nothing(history: list[tuple[bytes, int, int, int, bool]], tight: bool) -> None:
    room = Tight() if tight else Room(3, 1)
    ledger, model = Ledger(100, Spill(room, DictSpace())), Ledger(100)
    for offset, (kind, number, hop, age, value) in enumerate(history):
        key, mark = number.to_bytes(UNIT_ID_BYTES, "big"), tag(kind, max(0, offset - 10 * age), hop)
        raw = b"%d" % offset if value or kind != PUT else None
        assert ledger.replay(offset, key, mark, raw) == model.replay(offset, key, mark, raw)
        assert len(ledger) == len(model)
        assert all(ledger.knows(key, hop) == model.knows(key, hop) for hop in range(3))
        ledger.store.count()
    assert list(ledger.newest_puts) == list(model.newest_puts)
    assert taken_up(ledger) == taken_up(model)
    assert len(ledger) == len(model) == len(ledger.units)
