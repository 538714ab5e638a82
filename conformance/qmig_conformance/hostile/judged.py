"""What a swept stream is held to.

Nothing may end a destination by a signal or leave its monitor without an answer, whatever comes
(LEG-DST-165). Where a statement says more about what was done to the stream, that holds as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qmig_conformance.play import REFUSED, Outcome

ROBUST: Final = "LEG-DST-165"
SUCCEED: Final = frozenset({Outcome.SUCCEED})
WAITS: Final = frozenset({Outcome.WAITS})
PAUSED: Final = frozenset({Outcome.POSTCOPY_PAUSED})


@dataclass(frozen=True, slots=True)
class Held:
    """The statement, the outcomes that it allows (none: any in which nothing crashes or blocks), and what the
    stream violates."""

    requirement: str = ROBUST
    outcomes: frozenset[Outcome] = frozenset()
    violates: tuple[str, ...] = ()


def refused(requirement: str, *violates: str) -> Held:
    """The load fails, with a reason."""
    return Held(requirement, REFUSED, violates)


#: kind of record -> field -> the statement by which any other value fails the load
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "FileHeader": {"magic": "LEG-DST-011", "version": "LEG-DST-013"},
    "Configuration": {"section_type": "LEG-DST-014"},
    "Subsection": {"name": "LEG-DST-020", "version_id": "LEG-DST-095"},
    "ConfigurationPageBits": {"target_page_bits": "LEG-DST-017"},
    "OpenReturnPath": {"length": "LEG-DST-061"},
    "Ping": {"length": "LEG-DST-061"},
    "PostcopyAdvise": {
        "length": "LEG-DST-122",
        "page_sizes": "LEG-DST-122",
        "target_page_size": "LEG-DST-122",
    },
    "PostcopyRamDiscard": {"length": "LEG-DST-125", "version": "LEG-DST-125", "nul": "LEG-DST-125"},
    "Packaged": {"length": "LEG-DST-061"},
    "PostcopyListen": {"length": "LEG-DST-061"},
    "PostcopyRun": {"length": "LEG-DST-061"},
    "PostcopyResume": {"length": "LEG-DST-061"},
    "RecvBitmap": {"length": "LEG-DST-129", "block": "LEG-DST-129"},
    "SwitchoverStart": {"length": "LEG-DST-061"},
    "SectionStart": {
        "section_id": "LEG-DST-033",
        "idstr": "LEG-DST-031",
        "instance_id": "LEG-DST-031",
        "version_id": "LEG-DST-032",
    },
    "SectionPart": {"section_id": "LEG-DST-034"},
    "SectionEnd": {"section_id": "LEG-DST-034"},
    "SectionFull": {"section_id": "LEG-DST-033", "idstr": "LEG-DST-031", "version_id": "LEG-DST-032"},
    "SectionFooter": {"section_type": "LEG-DST-033", "section_id": "LEG-DST-033"},
    "DeviceState": {"data": "LEG-DST-114"},
    "EndOfFile": {"section_type": "LEG-DST-030"},
    "RamBlockEntry": {"idstr": "LEG-DST-050", "used_length": "LEG-DST-050"},
    "RamPage": {"word": "LEG-DST-051"},
    "RamZeroPage": {"word": "LEG-DST-051"},
    "RamXbzrlePage": {"word": "LEG-DST-051", "block": "LEG-DST-053", "encoding": "LEG-DST-104"},
    "MappedRamHeader": {"pages_offset": "LEG-DST-158"},
    "MappedRamBitmap": {"data": "LEG-DST-158"},
    "BlockDeviceData": {"device": "LEG-DST-144", "data": "LEG-DST-144"},
}
#: the same, of fields that make no difference
IGNORED: Final[Mapping[str, Mapping[str, str]]] = {
    "ConfigurationUuid": {"uuid": "LEG-DST-021"},
    "Ping": {"value": "LEG-DST-070"},
    "VmDescription": {"section_type": "LEG-DST-118", "json": "LEG-DST-040"},
}


def of_field(kind: str, field: str, own: str) -> Held:
    """What another value in a field is held to; `own` is the statement that declares the record."""
    if statement := FIELDS.get(kind, {}).get(field):
        return refused(statement, own)
    if statement := IGNORED.get(kind, {}).get(field):
        return Held(statement, SUCCEED, (own,))
    return Held(violates=(own,))
