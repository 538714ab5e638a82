"""Schemas for device state."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from qmig.legacy.sections import SectionFull


class _Vmdesc:
    origin = "vmdesc"

    def __init__(self, devices: list[dict[str, Any]]) -> None:
        self.devices = {(d["name"], d["instance_id"]): d for d in devices}

    def ends(self, section: SectionFull, view: memoryview) -> Iterable[int]:
        device = self.devices.get((section.idstr, section.instance_id))
        if device is not None:
            yield _length(device)


def _length(device: dict[str, Any]) -> int:
    total = sum(f["size"] * f.get("array_len", 1) for f in device["fields"])
    for sub in device.get("subsections", ()):
        total += 1 + 1 + len(sub["vmsd_name"]) + 4 + _length(sub)
    return int(total)


def schema_from_vmdesc(text: bytes) -> _Vmdesc | None:
    try:
        return _Vmdesc(json.loads(text)["devices"])
    except (ValueError, KeyError):
        return None
