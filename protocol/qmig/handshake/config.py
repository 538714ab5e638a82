"""What each end of a session wants, can and allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qmig._cbor import Value
from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src
from qmig.handshake.codes import Profile
from qmig.handshake.events import Reason
from qmig.handshake.messages import Implementation, Limits, Offer
from qmig.handshake.names import NAMES, Entry
from qmig.handshake.negotiate import Abilities, Conflicts
from qmig.handshake.policy import Admission
from qmig.handshake.resume import MAJORS
from qmig.handshake.table import Table


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What S wants. `conflicts` are names that its QEMU cannot have on together; `digests` are those of its
    description's classes; `allowed` and `strict` are the operator's policy on findings."""

    offers: Mapping[str, Offer]
    profile: Profile = Profile.MIGRATE
    implementation: Implementation | None = None
    limits: Limits | None = None
    digests: Mapping[str, bytes] | None = None
    conflicts: Conflicts = ()
    allowed: Sequence[Admission] = ()
    strict: bool = False
    names: Mapping[str, Entry] = field(default_factory=lambda: NAMES)
    majors: Sequence[int] = MAJORS
    table: Table[src.State, src.Event, src.Action] = src.TABLE


@dataclass(frozen=True, kw_only=True)
class DestinationConfig:
    """What D can do and wants. `digests` are those of its own description's classes; `required` are names
    without which it takes nobody, each with its reason; `holds` tells whether it can keep a loaded guest
    from running; `description` is what `description.peer` sends."""

    abilities: Abilities
    conflicts: Conflicts = ()
    required: Mapping[str, str] = field(default_factory=dict)
    implementation: Implementation | None = None
    limits: Limits | None = None
    digests: Mapping[str, bytes] = field(default_factory=dict)
    declared: Mapping[str, Value] = field(default_factory=dict)
    description: bytes = b"\xa0"
    holds: bool = True
    strict: bool = False
    refuse: Reason | None = None
    names: Mapping[str, Entry] = field(default_factory=lambda: NAMES)
    majors: Sequence[int] = MAJORS
    table: Table[dst.State, dst.Event, dst.Action] = dst.TABLE
