"""The migrations that a build is asked for when it is judged as a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One migration. `to` is "unix" (our receiving side) or "file"."""

    name: str
    to: str
    what: str
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: passes over the guest's memory before the source is allowed to finish
    rounds: int = 0


SCENARIOS = (
    Scenario(name="precopy", to="unix", what="the defaults, no return path"),
    Scenario(name="file", to="file", what="the defaults, into a file"),
    Scenario(name="return-path", to="unix", what="with return path", capabilities={"return-path": True}),
    Scenario(
        name="multifd",
        to="unix",
        what="two multifd channels, return path",
        capabilities={"multifd": True, "return-path": True},
        parameters={"multifd-channels": 2},
        rounds=2,
    ),
    Scenario(
        name="multifd-zlib",
        to="unix",
        what="two multifd channels, zlib",
        capabilities={"multifd": True},
        parameters={"multifd-channels": 2, "multifd-compression": "zlib"},
    ),
    Scenario(
        name="xbzrle",
        to="unix",
        what="differences of pages after the first round",
        capabilities={"xbzrle": True},
        rounds=4,
    ),
    Scenario(name="mapped-ram", to="file", what="pages at fixed offsets", capabilities={"mapped-ram": True}),
    Scenario(
        name="validate-uuid",
        to="unix",
        what="the machine's uuid is sent",
        capabilities={"validate-uuid": True},
    ),
)
