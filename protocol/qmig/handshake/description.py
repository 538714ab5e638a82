"""A machine description in its envelope: the bytes, inflated within their bound. What they say is the
judge's."""

from __future__ import annotations

import zlib
from typing import Final

from qmig.handshake import limits, transcript
from qmig.handshake.messages import Machine

PLAIN: Final = 0
DEFLATED: Final = 1


def inflated(message: Machine) -> bytes | None:
    """The description's bytes; None for an unknown encoding, a damaged one, or one beyond the limit, which
    stops as soon as that is seen (HS-DSC-004)."""
    if message.encoding == PLAIN:
        return message.data
    if message.encoding != DEFLATED:
        return None
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(message.data, limits.DESCRIPTION)
    except zlib.error:
        return None
    whole = unpack.eof and not unpack.unused_data and not unpack.unconsumed_tail
    return data if whole else None


def deflated(data: bytes) -> bytes:
    """The description's bytes, deflated; its digest is over what went in (HS-DSC-002)."""
    return zlib.compress(data, 6)


def message(data: bytes, *, schema: int = 1) -> Machine:
    """The MACHINE that carries a description, deflated where that is shorter (HS-DSC-003)."""
    packed = deflated(data)
    encoding, carried = (DEFLATED, packed) if len(packed) < len(data) else (PLAIN, data)
    return Machine(schema=schema, encoding=encoding, data=carried, sha256=transcript.sha256(data))
