"""What is said of recorded return paths, and of ones in which something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qmig import LegacyReceiver, Record
from qmig.legacy.returnpath import RpPong, RpRecvBitmap, RpReqPages, RpReqPagesId, RpResumeAck, RpShut
from qmig.testing import load_vectors
from qmig_conformance.case import Unmet
from qmig_conformance.hostile import answers
from qmig_conformance.hostile.script import Script


def recorded(name: str, main: str = "main", rp: str = "rp") -> tuple[Script, list[Any]]:
    (vector,) = [v for v in load_vectors("legacy/recordings") if v.id.endswith(f"#{name}")]
    if main == "main":
        script = Script.main(vector.data("main"))
    else:  # the first main was cut
        first = LegacyReceiver()
        first.receive_data(vector.data("main"))
        while isinstance(first.next_event(), Record):
            pass
        script = Script.main(vector.data(main), state=first.state, headerless=True)
    return script, answers.messages(vector.data(rp))


def refused(work: Callable[[], None]) -> None:
    with pytest.raises(Unmet):
        work()


def test_a_precopy() -> None:
    script, told = recorded("10.0-return-path")
    answers.pongs(script, told)
    answers.ends(told, 0)
    answers.nothing_else(told, RpPong, RpShut)
    refused(lambda: answers.pongs(script, [*told, RpPong(value=1)]))
    refused(lambda: answers.pongs(script, told[1:]))
    refused(lambda: answers.ends(told, 1))
    refused(lambda: answers.ends(told[:-1], 0))
    refused(lambda: answers.ends([told[-1], told[0]], 0))
    refused(lambda: answers.ends([*told, told[-1]], 0))
    refused(lambda: answers.ends(told, None))
    refused(lambda: answers.nothing_else([*told, RpResumeAck(value=1)], RpPong, RpShut))
    answers.ends([], None)


def test_a_postcopy_that_asks_for_pages() -> None:
    script, told = recorded("11.1-postcopy")
    blocks = script.state.blocks
    answers.pongs(script, told)
    answers.requests(blocks, told, 4096)
    first = RpReqPagesId(header_len=13 + 6, start=0, length=4096, block="pc.ram")
    answers.requests(blocks, [first, RpReqPages(start=4096, length=4096)], 4096)
    refused(lambda: answers.requests(blocks, [RpReqPages(start=0, length=4096)], 4096))
    for start, length in ((1, 4096), (0, 8192), (blocks["pc.ram"].used_length, 4096)):
        wrong = RpReqPages(start=start, length=length)
        refused(lambda wrong=wrong: answers.requests(blocks, [first, wrong], 4096))  # type: ignore[misc]
    unknown = RpReqPagesId(header_len=13 + 3, start=0, length=4096, block="zzz")
    refused(lambda: answers.requests(blocks, [unknown], 4096))


def test_a_recovery() -> None:
    script, told = recorded("5.2-postcopy-recover", "main-2", "rp-2")
    blocks = script.state.blocks
    answers.bitmaps(script, blocks, told, 4096)
    answers.resumed(script, told)
    assert answers.of(RpRecvBitmap, told)
    refused(lambda: answers.bitmaps(script, blocks, told[1:], 4096))
    one = told[0]
    short = RpRecvBitmap(header_len=one.header_len, block=one.block, bitmap=one.bitmap[:-8])
    refused(lambda: answers.bitmaps(script, blocks, [short, *told[1:]], 4096))
    refused(lambda: answers.resumed(script, [m for m in told if not isinstance(m, RpResumeAck)]))
    late = RpReqPagesId(header_len=13 + 6, start=0, length=4096, block="pc.ram")
    refused(lambda: answers.resumed(script, [late, *told]))
    refused(lambda: answers.resumed(script, [*told, RpResumeAck(value=1)]))


def test_what_cannot_be_read_is_told() -> None:
    for data in (b"\0\1\0\4\0\0\0", b"\0\2\0\5\0\0\0\1\0"):
        with pytest.raises(Unmet, match="messages that can be read"):
            answers.messages(data)
