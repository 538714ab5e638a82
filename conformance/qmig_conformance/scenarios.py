"""The migrations that a build is asked for when it is judged as a source: some of all there are."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from qmig.testing.scenario import Scenario
from qmig.testing.scenarios import scenario

_NAMES: Final = (
    "precopy-sink",
    "precopy-file",
    "return-path",
    "multifd-rounds-2",
    "multifd-zlib-2",
    "xbzrle",
    "mapped-ram",
    "validate-uuid",
)


def _chosen() -> Iterator[Scenario]:
    """With a uuid that is not zero, so that it shows where it is sent."""
    for name in _NAMES:
        found = scenario(name)
        identity = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        given = () if "-uuid" in found.options else ("-uuid", identity)
        yield replace(found, options=(*found.options, *given))


SCENARIOS: Final[tuple[Scenario, ...]] = tuple(_chosen())
