"""Machine images to migrate in tests: out of recordings among the vectors, and of synthetic migrations."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from qmig.errors import TruncatedStream
from qmig.legacy.connection import Told
from qmig.legacy.machine_image import ImageCollector, MachineImage
from qmig.legacy.session import MigrationSession
from qmig.testing import load_vectors, migrations

#: a machine of 16 MiB with all that is usual
Q35 = "11.1-precopy-plain-q35"


def collect(channels: Mapping[str, bytes]) -> MachineImage:
    """The image in a recording's channels; connections that broke on the way are passed over."""
    session, collector = MigrationSession(), ImageCollector()
    for name, data in channels.items():
        session.receive_data(name, data)
        session.receive_data(name, b"")
    while True:
        try:
            told = session.next_event()
        except TruncatedStream:
            continue
        if not isinstance(told, Told):
            return collector.finish()
        collector.apply(told)


@functools.cache
def recorded(name: str = Q35) -> MachineImage:
    """The image of the recording `legacy/recordings#NAME`."""
    (vector,) = [v for v in load_vectors("legacy/recordings") if v.id.endswith(f"#{name}")]
    return collect({channel: vector.data(channel) for channel in vector.channels})


@functools.cache
def small(story: str = "precopy") -> MachineImage:
    """The image of a synthetic migration (`qmig.testing.migrations`): two blocks, 18 pages, three devices."""
    made = getattr(migrations, story)()
    return collect({name: made.bytes_of(name) for name in made.channels()})
