"""Machine images to migrate in tests: out of recordings among the vectors, and of synthetic migrations."""

from __future__ import annotations

import functools

from qmig.legacy.machine_image import MachineImage, image_of
from qmig.testing import load_vectors, migrations

#: a machine of 16 MiB with all that is usual
Q35 = "11.1-precopy-plain-q35"


@functools.cache
def recorded(name: str = Q35) -> MachineImage:
    """The image of the recording `legacy/recordings#NAME`."""
    (vector,) = [v for v in load_vectors("legacy/recordings") if v.id.endswith(f"#{name}")]
    return image_of({channel: vector.data(channel) for channel in vector.channels})


@functools.cache
def small(story: str = "precopy") -> MachineImage:
    """The image of a synthetic migration (`qmig.testing.migrations`): two blocks, 18 pages, three devices."""
    made = getattr(migrations, story)()
    return image_of({name: made.bytes_of(name) for name in made.channels()})
