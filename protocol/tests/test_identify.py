"""What a channel is, by its first bytes; and that more bytes never contradict a firm answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig.legacy import containers, cpr, header, multifd, qcow2
from qmig.legacy import identify as module
from qmig.legacy.identify import ENOUGH, Certainty, ChannelKind, identify
from qmig.testing import load_vectors
from qmig.testing.channels import hello

K, C = ChannelKind, Certainty

KNOWN = [
    ("51455645", K.UNKNOWN, C.NONE),
    ("5145564d 00000003 07", K.MAIN, C.CERTAIN),
    ("5145564d 00000002", K.MAIN, C.CERTAIN),
    (hello().hex(), K.MULTIFD, C.CERTAIN),
    ("51435052 00000001", K.CPR, C.CERTAIN),
    (b"LibvirtQemudSave\2\0\0\0".hex(), K.LIBVIRT, C.CERTAIN),
    (b"LibvirtQemudPart\2\0\0\0".hex(), K.LIBVIRT, C.CERTAIN),
    ("514649fb 00000003", K.QCOW2, C.CERTAIN),
    # TLS
    ("16 0301 0200 01 0001fc", K.TLS, C.LIKELY),
    ("16 0303 007a 02 000076", K.TLS, C.LIKELY),
    ("16 0301 0200 05", K.UNKNOWN, C.NONE),
    ("16 0301 0003 01 000000", K.UNKNOWN, C.NONE),
    ("16 0301 ffff 01 000000", K.UNKNOWN, C.NONE),
    ("16 0501 0200 01", K.UNKNOWN, C.NONE),
    # a recovery's main channel
    ("08 000a 0007 06 70632e72616d 08", K.RECOVERY, C.LIKELY),
    ("08 000a 00ff fe" + "61" * 40, K.RECOVERY, C.LIKELY),
    ("08 0009 0000", K.RECOVERY, C.LIKELY),
    ("08 0009 0001", K.RECOVERY, C.POSSIBLE),
    ("08 0004 0000 01", K.RECOVERY, C.POSSIBLE),
    ("08 000a 0008 06 70632e72616d", K.UNKNOWN, C.NONE),
    ("08 000a 0007 06 70632e72610d", K.UNKNOWN, C.NONE),
    ("08 000c 0000", K.UNKNOWN, C.NONE),
    ("08 0000 0000", K.UNKNOWN, C.NONE),
    # return path
    ("0002 0004 00000001", K.RETURN_PATH, C.LIKELY),
    ("0007 0000 0002 0004", K.RETURN_PATH, C.LIKELY),
    ("0001 0004 00000001", K.RETURN_PATH, C.LIKELY),
    ("0003 0013 0000000000123000 00001000 06 70632e72616d", K.RETURN_PATH, C.LIKELY),
    ("0005 0007 06 70632e72616d 0000000000000008", K.RETURN_PATH, C.LIKELY),
    ("0002 0005 00000001", K.UNKNOWN, C.NONE),
    ("0003 000c 0000000000123000 00001000", K.UNKNOWN, C.NONE),
    ("0003 0014 0000000000123000 00001000 06 70632e72616d", K.UNKNOWN, C.NONE),
    ("0005 0000", K.UNKNOWN, C.NONE),
    ("0005 0201", K.UNKNOWN, C.NONE),
    ("0005 0003 02 0708", K.UNKNOWN, C.NONE),
    ("0008 0000 00000000", K.UNKNOWN, C.NONE),
    # preempt channel
    ("0000000000123008 06 70632e72616d 00", K.PREEMPT, C.LIKELY),
    ("000000fffffff002 02 6d30 00", K.PREEMPT, C.LIKELY),
    ("0000000000000010", K.PREEMPT, C.POSSIBLE),
    ("0000000000123028", K.UNKNOWN, C.NONE),
    ("0000000000123048 02 6d30", K.UNKNOWN, C.NONE),
    ("0000000000123008 00", K.UNKNOWN, C.NONE),
    ("0000000000123008 02 0000", K.UNKNOWN, C.NONE),
    ("47455420 2f20", K.UNKNOWN, C.NONE),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "certainty"), KNOWN)
def test_known_beginnings(text: str, kind: ChannelKind, certainty: Certainty) -> None:
    found = identify(bytes.fromhex(text))
    assert (found.kind, found.certainty, found.missing) == (kind, certainty, 0)
    assert found.reason


@pytest.mark.parametrize(("text", "kind", "certainty"), KNOWN)
def test_too_few_bytes_ask_for_more(text: str, kind: ChannelKind, certainty: Certainty) -> None:
    """What is said of a beginning and stands (nothing missing) is what is said of the whole."""
    whole = bytes.fromhex(text)
    final = identify(whole)
    for size in range(len(whole)):
        found = identify(memoryview(whole)[:size])
        assert found.certainty < C.CERTAIN or found.kind is kind
        if not found.missing:
            assert found.kind is final.kind or found.certainty < C.CERTAIN
        if found.kind is not final.kind and final.certainty > C.POSSIBLE:
            assert found.missing, (size, found)
    assert (final.kind, final.certainty) == (kind, certainty)


def test_nothing_says_nothing() -> None:
    """LEG-CHN-003."""
    found = identify(b"")
    assert (found.kind, found.certainty, found.missing) == (K.UNKNOWN, C.NONE, 1)


@given(st.binary(max_size=48))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    found = identify(head)
    assert identify(head[:ENOUGH]) == found
    assert 0 <= found.missing <= ENOUGH
    if len(head) >= ENOUGH:
        assert not found.missing


@given(st.sampled_from(KNOWN), st.binary(max_size=48))
def test_any_bytes_behind_a_beginning_have_an_answer(
    known: tuple[str, ChannelKind, Certainty], tail: bytes
) -> None:
    head = bytes.fromhex(known[0])
    found = identify(head + tail)
    if known[2] is C.CERTAIN:
        assert found.kind is known[1]


EXPECTED = {"main": K.MAIN, "multifd": K.MULTIFD, "preempt": K.PREEMPT, "rp": K.RETURN_PATH, "cpr": K.CPR}


def test_recorded_channels() -> None:
    """LEG-CHN-001, LEG-CHN-002."""
    seen = set()
    for vector in load_vectors(reader="stream"):
        if vector.id.endswith("-offset"):
            continue  # the stream begins in the middle of its file
        for name, channel in vector.channels.items():
            kind = EXPECTED[name.split("-")[0]]
            if name == "main-2" and "recover" in vector.id:
                kind = K.RECOVERY
            found = identify(channel.read()[:ENOUGH])
            assert found.kind is kind, (vector.id, name, found)
            assert found.certainty >= C.LIKELY
            seen.add(kind)
    assert seen == {*EXPECTED.values(), K.RECOVERY}


def test_the_magic_numbers_are_those_of_the_readers() -> None:
    magics = {kind: magic for magic, kind, _ in reversed(module._MAGICS)}
    assert magics == {
        K.MAIN: header.FILE_MAGIC.to_bytes(4, "big"),
        K.MULTIFD: multifd.MULTIFD_MAGIC.to_bytes(4, "big"),
        K.CPR: cpr.CPR_MAGIC.to_bytes(4, "big"),
        K.LIBVIRT: containers.LIBVIRT_MAGIC,
        K.QCOW2: qcow2.Qcow2Header.magic.to_bytes(4, "big"),
    }
