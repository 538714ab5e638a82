"""RAM out of whole sessions: the digests that an independent decoder found, multifd payloads included."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from qmig.errors import RemoteProtocolError, TruncatedStream, UnsupportedFeature
from qmig.legacy.connection import Told
from qmig.legacy.multifd import MultifdFlag, MultifdPacket
from qmig.legacy.ram import RamBlockEntry
from qmig.legacy.rebuild import Rebuild
from qmig.legacy.receiver import CLOSED
from qmig.legacy.session import MigrationSession
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors
from qmig.testing import migrations as mig

RECORDINGS = [v for v in load_vectors("legacy/recordings") if v.read_facts()["ram"]]


def rebuild(vector: Vector) -> tuple[dict[str, bytearray], Rebuild]:
    """The memory of a recording's last migration."""
    blocks: dict[str, bytearray] = {}

    def open_block(idstr: str, length: int) -> bytearray:
        blocks[idstr] = bytearray(length)
        return blocks[idstr]

    memory = Rebuild(open_block)
    session = MigrationSession()
    left = {name: vector.data(name) for name in vector.channels}
    for name, data in left.items():
        # `file:…,offset=N` leaves N bytes before the stream
        start = data.find(b"QEVM") if name == "main" else 0
        session.open(name, offset=start)
        left[name] = data[start:]
    attempt = 0
    while True:
        try:
            told = session.next_event()
        except TruncatedStream:
            assert "cut" in vector.flags
            continue  # a channel was cut; the recovery's channels go on
        if told is CLOSED:
            return blocks, memory
        if isinstance(told, Told):
            if told.attempt != attempt:
                attempt, memory = told.attempt, Rebuild(open_block)
            memory.apply(told)
        else:
            for name in session.wants():
                session.receive_data(name, left.pop(name, b""))


@pytest.mark.parametrize("vector", RECORDINGS, ids=lambda vector: vector.id)
def test_memory_is_what_another_decoder_rebuilt(vector: Vector) -> None:
    expected = {
        block["idstr"]: block["sha256"] for block in vector.read_facts()["ram"][-1] if block["sha256"]
    }
    blocks, memory = rebuild(vector)
    found = {name: hashlib.sha256(data).hexdigest() for name, data in blocks.items()}
    assert {name: found[name] for name in expected} == expected
    assert expected or "ignore" in vector.id or "cpr" in vector.id  # there RAM is shared, not sent
    for name in expected:
        assert memory.image.block(name).pages is not None


def packet() -> Told:
    offsets = (0).to_bytes(8, "big") + bytes(8 * 127)
    values: dict[str, Any] = {
        "flags": int(MultifdFlag.QPL),
        "pages_alloc": 128,
        "normal_pages": 1,
        "next_packet_size": 4,
        "packet_num": 1,
        "zero_pages": 0,
        "unused": bytes(28),
        "ramblock": b"pc.ram".ljust(256, b"\0"),
        "offsets": offsets,
        "payload": b"abcd",
        "page_size": 4096,
    }
    return Told("multifd-0", MultifdPacket(**values), 1, 1, 1)


def test_a_method_that_cannot_be_undone_is_said_once_per_channel() -> None:
    memory = Rebuild(lambda _, length: bytearray(length))
    memory.apply(Told("main", RamBlockEntry(idstr="pc.ram", used_length=0x1000), 1, 1, 1))
    with pytest.raises(UnsupportedFeature) as caught:
        memory.apply(packet())
    assert caught.value.channel == "multifd-0"
    memory.apply(packet())  # the channel is known to be lost; the rest of the story goes on


def test_pages_of_a_block_that_main_never_listed_are_an_error_of_the_channel() -> None:
    """Main may end before its block list; the channels are told on without it."""
    packet = mig.packet(3, "m0", range(8))
    with pytest.raises(RemoteProtocolError, match="was not listed") as caught:
        Rebuild(lambda _, length: bytearray(length)).apply(Told("multifd-0", packet, 1, 1, 1))
    assert (caught.value.requirement, caught.value.record) == ("LEG-RAM-040", "MultifdPacket")
