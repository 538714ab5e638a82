"""Durable records of hand-over: order, durability, and what is never taken for none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmig.errors import EnvironmentProblem, LocalProtocolError
from qmig.handshake.codes import Record
from qmig.peers.records import Entry, RecordStore, Side

SESSION = bytes(range(16))
PATHS = {
    Side.SOURCE: {("given",), ("back",), ("given", "back")},
    Side.DESTINATION: {
        ("taken",), ("ran",), ("returned",), ("taken", "ran"), ("taken", "returned"),
    },
}  # fmt: skip


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("second", Record)
@pytest.mark.parametrize("first", Record)
def test_records_follow_each_other_as_promises_allow(
    tmp_path: Path, side: Side, first: Record, second: Record
) -> None:
    store = RecordStore(tmp_path, side)
    if (first.value,) not in PATHS[side]:
        with pytest.raises(LocalProtocolError, match="behind"):
            store.write(SESSION, first, run=True)
        assert store.read(SESSION) is None
        return
    store.write(SESSION, first, run=True)
    assert store.read(SESSION) == Entry(record=first, run=True)
    if first is second or (first.value, second.value) in PATHS[side]:
        store.write(SESSION, second, run=False)
        assert store.read(SESSION) == Entry(record=second, run=False)
    else:
        with pytest.raises(LocalProtocolError):
            store.write(SESSION, second, run=False)
        assert store.read(SESSION) == Entry(record=first, run=True)


def test_sessions_and_sides_are_kept_apart(tmp_path: Path) -> None:
    source, destination = RecordStore(tmp_path, Side.SOURCE), RecordStore(tmp_path, Side.DESTINATION)
    source.write(SESSION, Record.GIVEN, run=True)
    assert destination.read(SESSION) is None
    assert source.read(bytes(16)) is None
    destination.write(SESSION, Record.TAKEN, run=True)
    assert source.read(SESSION) == Entry(record=Record.GIVEN, run=True)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b'{"record": "taken"}', b'{"record": "taken", "run": 1}',
        b'{"record": "no", "run": true}',
        b'{"record": "given", "run": true}', b"\xff", b" " * 300 + b'{"record": "taken", "run": true}',
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, data: bytes) -> None:
    store = RecordStore(tmp_path, Side.DESTINATION)
    store.write(SESSION, Record.TAKEN, run=True)
    (file,) = tmp_path.iterdir()
    file.write_bytes(data)
    with pytest.raises(EnvironmentProblem, match="record"):
        store.read(SESSION)
    with pytest.raises(EnvironmentProblem, match="record"):
        store.write(SESSION, Record.RETURNED, run=True)
    assert file.read_bytes() == data


@pytest.mark.parametrize(("owner", "fails"), [(os, "fsync"), (Path, "replace")])
def test_a_failing_disk_leaves_the_last_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, fails: str
) -> None:
    store = RecordStore(tmp_path, Side.DESTINATION)
    store.write(SESSION, Record.TAKEN, run=True)

    def fail(*_: object) -> None:
        raise OSError("the disk failed")

    with monkeypatch.context() as patch:
        patch.setattr(owner, fails, fail)
        with pytest.raises(EnvironmentProblem, match="the disk failed"):
            store.write(SESSION, Record.RAN, run=True)
    assert store.read(SESSION) == Entry(record=Record.TAKEN, run=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_file_then_name_then_directory_reach_the_disk_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append("directory" if Path(f"/proc/self/fd/{handle}").is_dir() else "file")
        fsync(handle)

    def replaced(old: Path, new: Path) -> Path:
        done.append("name")
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    RecordStore(tmp_path, Side.SOURCE).write(SESSION, Record.GIVEN, run=True)
    assert done == ["file", "name", "directory"]
