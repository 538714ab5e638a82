"""Names of channels, as recordings spell them, and what each name stands for.

`main`, `rp`, `preempt`, `cpr`: one of each per connection; `multifd-N`, `tls-N`: many.
A trailing `-2` is the same channel of a second connection: the next attempt, or the
recovery of a paused postcopy. `NAME.rp` are the bytes that came back on NAME.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from qmig.errors import LocalProtocolError

_NAME: Final = re.compile(
    r"(?:(?P<numbered>multifd|tls)-(?P<number>\d{1,3})|(?P<kind>main|rp|preempt|cpr))"
    r"(?:-(?P<connection>[1-9]\d{0,3}))?(?P<back>\.rp)?"
)


class ChannelName(NamedTuple):
    """`connection` counts from 1; `number` is the multifd id (or the order of a TLS connection)."""

    kind: str
    number: int
    connection: int


def parse_name(name: str) -> ChannelName:
    """What a channel's name says. Raises `LocalProtocolError` for a name that is none."""
    found = _NAME.fullmatch(name)
    kind = (found["numbered"] or found["kind"]) if found else ""
    if found and found["back"]:
        kind = {"main": "rp", "tls": "tls"}.get(kind, "")
    if not found or not kind:
        raise LocalProtocolError(
            f"{name!a} names no channel; known: main, multifd-N, preempt, rp, cpr, tls-N, each with -2 "
            "for a second connection",
            requirement="LEG-GEN-001",
        )
    return ChannelName(kind, int(found["number"] or 0), int(found["connection"] or 1))
