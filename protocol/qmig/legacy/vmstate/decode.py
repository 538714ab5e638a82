"""Device state to fields, by the description of the same stream.

Rule 1: a described size is exact for the field it stands in, and for the first element of
an array only; what QEMU does not describe (LEG-VMS-071) is searched for, never assumed.
Rule 2: bytes outside the section are never read, and every byte of it is in one field.
"""

from __future__ import annotations

from typing import Final

from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.compiled import tight
from qmig.legacy.vmstate.model import DeviceState, NoteKind
from qmig.legacy.vmstate.region import Region
from qmig.legacy.vmstate.vmdesc import DeviceDescription


def decode_device(
    description: DeviceDescription,
    data: memoryview,
    base_offset: int,
    *,
    version_id: int | None = None,
) -> DeviceState:
    """The fields of one FULL section. `data` is its body, `base_offset` the absolute offset of
    that, `version_id` what the section's header says.

    Raises nothing on what the bytes say: what does not fit becomes an opaque field and a note.
    """
    return decode_body(
        tight(description.body),
        data,
        base_offset,
        idstr=description.name,
        instance_id=description.instance_id,
        version_id=version_id,
        basis="vmdesc",
    )


_MOST_STEPS: Final = 200_000


def budget_for(size: int) -> int:
    """Steps that a search in `size` bytes may take: bounded by the input, so that a hostile
    stream costs time by its length only. Real devices take at most 2,000, one 33,000."""
    return min(500 + size * 4, _MOST_STEPS)


def decode_body(
    shape: BodyShape,
    data: memoryview,
    base_offset: int,
    *,
    idstr: str,
    instance_id: int,
    version_id: int | None,
    basis: str,
) -> DeviceState:
    """The fields of a section by any shape."""
    region = Region(data, base_offset, budget=budget_for(len(data)))
    fields = shape.read(region, 0, len(data))
    notes = region.notes
    if version_id is not None and shape.vmsd_name and version_id != shape.version:
        message = f"the section says version {version_id}, its description {shape.version}"
        notes.insert(0, region.note(NoteKind.MISFIT, message, 0, len(data), "LEG-VMS-054"))
    return DeviceState(
        idstr=idstr,
        instance_id=instance_id,
        vmsd_name=shape.vmsd_name or None,
        version_id=shape.version if version_id is None else version_id,
        offset=base_offset,
        size=len(data),
        basis=basis,
        fields=fields,
        notes=notes,
        loosened=region.loosened,
    )
