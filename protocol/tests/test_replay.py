"""Recordings sent again: their bytes untouched, waiting for nothing but what the protocol waits for."""

from __future__ import annotations

import pytest

from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy import returnpath as rp
from qmig.legacy.ram import RamEos
from qmig.legacy.replay import PIECE, Replay
from qmig.legacy.source import Connect, End, Output, Send
from qmig.legacy.source_table import SourcePhase
from qmig.testing import load_vectors
from qmig.testing import migrations as m
from qmig.testing.answerer import EVERYTHING


def channels(name: str) -> dict[str, bytes]:
    (vector,) = [v for v in load_vectors("legacy/recordings") if v.id.endswith(f"#{name}")]
    return {channel: vector.data(channel) for channel in vector.channels if not channel.startswith("rp")}


def all_of(replay: Replay) -> list[Output]:
    outputs = []
    while (output := replay.next_output(EVERYTHING)) is not None:
        outputs.append(output)
    return outputs


def carried(outputs: list[Output]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for output in outputs:
        if isinstance(output, Send):
            found[output.channel] = found.get(output.channel, b"") + output.data
    return found


def test_without_return_path() -> None:
    data = channels("11.1-precopy-plain-q35")
    replay = Replay(data)
    assert not replay.hungry
    outputs = all_of(replay)
    assert outputs[0] == Connect("main")
    assert outputs[-1] == End("main")
    assert carried(outputs) == data
    assert max(len(output.data) for output in outputs if isinstance(output, Send)) == PIECE
    assert replay.waiting_for() == "the channels to take all that was sent"
    replay.delivered()
    assert replay.next_output(EVERYTHING) is None
    assert replay.phase is SourcePhase.COMPLETED
    assert replay.ended
    assert replay.sent == {"main": len(data["main"])}
    assert replay.next_output(EVERYTHING) is None


def test_channels_at_their_own_pace_and_shut_awaited() -> None:
    data = channels("11.1-multifd-rounds-2")
    replay = Replay(data)
    connected = [replay.next_output(()) for _ in range(3)]
    assert connected == [Connect("main"), Connect("multifd-0"), Connect("multifd-1")]
    only = []
    while (output := replay.next_output({"multifd-1"})) is not None:
        only.append(output)
    assert carried(only) == {"multifd-1": data["multifd-1"]}
    assert carried([*only, *all_of(replay)]) == data
    assert replay.waiting_for() == "SHUT on the return path"
    assert replay.phase is SourcePhase.FINISHING
    replay.receive_data(rp.RpPong(value=1).encode() + rp.RpReqPages(start=0, length=4096).encode())
    assert replay.hungry
    replay.receive_data(rp.RpShut(value=0).encode())
    assert (replay.phase, replay.shut, replay.error) == (SourcePhase.COMPLETED, 0, "")


def test_a_preempt_channel_is_connected_behind_pong_1() -> None:
    story = m.postcopy()
    replay = Replay({name: story.bytes_of(name) for name in ("main", "preempt")})
    outputs = all_of(replay)
    assert [output for output in outputs if isinstance(output, Connect)] == [Connect("main")]
    assert replay.waiting_for() == "PONG 1 on the return path"
    replay.receive_data(rp.RpPong(value=1).encode())
    assert replay.next_output(EVERYTHING) == Connect("preempt")
    assert carried(all_of(replay)) == {"preempt": story.bytes_of("preempt")}
    assert replay.waiting_for() == "SHUT on the return path"


def test_an_old_preempt_channel_is_connected_at_once() -> None:
    story = m.postcopy()
    replay = Replay(
        {"main": story.bytes_of("main"), "preempt": story.bytes_of("preempt") + RamEos().encode()}
    )
    assert [replay.next_output(()), replay.next_output(())] == [Connect("main"), Connect("preempt")]
    assert replay.waiting_for() == ""


def test_a_failed_load() -> None:
    replay = Replay(channels("11.1-multifd-rounds-2"))
    all_of(replay)
    replay.receive_data(rp.RpShut(value=1).encode())
    assert replay.phase is SourcePhase.FAILED
    assert "SHUT 1" in replay.error
    replay.lost("later")
    assert "SHUT 1" in replay.error


def test_lost_connections() -> None:
    replay = Replay(channels("11.1-multifd-rounds-2"))
    replay.receive_data(b"\0")
    replay.receive_data(b"")
    assert "inside a message" in replay.error
    other = Replay(channels("11.1-multifd-rounds-2"))
    other.receive_data(b"")
    assert other.error == "the destination closed the return path"
    with pytest.raises(RemoteProtocolError) as caught:
        Replay(channels("11.1-multifd-rounds-2")).receive_data(b"\0\2\0\0")
    assert caught.value.requirement == "LEG-RPM-004"
    assert caught.value.channel == "rp"


@pytest.mark.parametrize("names", [["multifd-0"], ["main", "rp"], ["main", "main-2"]])
def test_channels_that_no_source_has(names: list[str]) -> None:
    with pytest.raises(LocalProtocolError, match="a replay takes"):
        Replay(dict.fromkeys(names, b"QEVM"))
