"""The local store on a real disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.spill.space import SpillLost
from mailfleet_router.shell.spill_file import TRY_AGAIN_CHUNKS, SpillFile
from support import disks, needs


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=5000), st.integers(0, 20))))
def test_what_is_written_is_read_until_it_is_freed(history: list[tuple[bool, bytes, int]]) -> None:
    file, kept = SpillFile("/tmp"), dict[int, bytes]()
    for add, data, which in history:
        if add:
            address = file.write(data)
            assert address is not None
            assert address not in kept
            kept[address] = data
        elif kept:
            address = sorted(kept)[which % len(kept)]
            file.free(address, len(kept.pop(address)))
        assert all(file.read(address, len(data)) == data for address, data in kept.items())
    file.clear()


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    file = SpillFile(str(tmp_path / "spill"))
    file.write(b"x" * 10_000)
    assert not list((tmp_path / "spill").iterdir())
    file.clear()


def test_a_piece_is_used_again(tmp_path: Path) -> None:
    file = SpillFile(str(tmp_path))
    first = file.write(b"x" * 3000)
    assert first is not None
    file.free(first, 3000)
    assert file.write(b"y" * 4000) == first
    file.clear()


def test_what_was_not_written_is_lost(tmp_path: Path) -> None:
    file = SpillFile(str(tmp_path))
    with pytest.raises(SpillLost):
        file.read(0, 10)
    file.write(b"x")
    with pytest.raises(SpillLost):
        file.read(4096, 10)
    file.clear()


def test_without_a_disk_everything_stays_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    file = SpillFile(str(tmp_path / "file"))
    assert [file.write(b"x") for _ in range(TRY_AGAIN_CHUNKS)] == [None] * TRY_AGAIN_CHUNKS
    assert len(caplog.records) == 1


def test_a_full_disk_takes_no_more_and_keeps_what_it_has(tmp_path: Path) -> None:
    needs.need("root")
    with disks.tmpfs(tmp_path / "disk", 1) as disk:
        file, kept = SpillFile(str(disk)), list[int]()
        while (address := file.write(b"x" * 30_000)) is not None:
            kept.append(address)
        assert 20 < len(kept) < 40
        assert all(file.read(address, 30_000) == b"x" * 30_000 for address in kept)
        file.free(kept[0], 30_000)
        assert [file.write(b"y" * 30_000) for _ in range(TRY_AGAIN_CHUNKS + 1)][-1] == kept[0]
        file.clear()
