"""The fields of one device as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from qmig.legacy.sections import DeviceState, SectionFull
from qmig.legacy.state import StreamState


def device_lines(
    state: StreamState, section: SectionFull, body: DeviceState, *, verbose: bool
) -> Iterator[str]:
    yield f"{body.size} bytes"
