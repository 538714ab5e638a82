"""Reads a recording's files and says everything there is to say about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qmig.errors import RemoteProtocolError
from qmig.legacy.connection import Told
from qmig.legacy.rebuild import Rebuild
from qmig.legacy.receiver import CLOSED
from qmig.legacy.session import MigrationSession
from qmig.legacy.verify import Finding, Known, Outcome, Verifier

#: bytes compared at a time
STRIDE = 1 << 20
#: how a case begins to tell of what a version is known for, and what is no failure
KNOWN: Final = "known of this version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`error` is what ended the reading early; `differs` where encoding the events gave other bytes."""

    error: str
    differs: str
    findings: tuple[Finding, ...]
    outcomes: Mapping[str, Outcome]
    memory_differences: tuple[str, ...]


def judge(folder: Path, meta: Mapping[str, Any]) -> Judgement:
    """Reads all channels of a recording laid out as in `qmig_conformance.capture`."""
    channels = {
        entry["name"]: memoryview((folder / entry["forward"]["file"]).read_bytes())
        for entry in meta["channels"]
    }
    offsets = {entry["name"]: entry.get("offset", 0) for entry in meta["channels"]}
    blocks: dict[str, bytearray] = {}
    found = judge_channels(channels, Known.from_meta(meta), offsets, blocks)
    return replace(found, memory_differences=tuple(_compare(folder, meta.get("memory", {}), blocks)))


def judge_channels(
    channels: Mapping[str, bytes | memoryview],
    known: Known,
    offsets: Mapping[str, int] | None = None,
    blocks: dict[str, bytearray] | None = None,
) -> Judgement:
    """The same of bytes; a channel begins at its offset. `blocks` gets the rebuilt memory."""
    offsets = offsets or dict.fromkeys(channels, 0)
    memories: dict[str, bytearray] = {} if blocks is None else blocks
    verifier = Verifier(known)

    def open_block(idstr: str, length: int) -> bytearray:
        return memories.setdefault(idstr, bytearray(length))

    memory = Rebuild(open_block)
    rewritten = dict(offsets)
    differs = ""
    error = ""
    for told in _story({name: memoryview(data) for name, data in channels.items()}, offsets):
        if isinstance(told, RemoteProtocolError):
            verifier.failed(told.channel or "main", told)
            error = error or str(told)
            continue
        verifier.check(told.channel, told.event)
        memory.apply(told)
        at = rewritten[told.channel]
        raw = told.event.encode()
        if not differs and channels[told.channel][at : at + len(raw)] != raw:
            differs = f"{told.channel}: offset {at:#x}, {type(told.event).__name__}"
        rewritten[told.channel] = at + len(raw)
    report = verifier.finish()
    return Judgement(
        error=error,
        differs=differs,
        findings=report.findings,
        outcomes={outcome.requirement: outcome for outcome in report.outcomes},
        memory_differences=(),
    )


def _story(
    channels: Mapping[str, memoryview], offsets: Mapping[str, int]
) -> Iterator[Told | RemoteProtocolError]:
    session = MigrationSession()
    for name in channels:
        session.open(name, offset=offsets[name])
    left = {name: data[offsets[name] :] for name, data in channels.items()}
    while True:
        try:
            event = session.next_event()
        except RemoteProtocolError as error:
            yield error
            continue
        if isinstance(event, Told):
            yield event
        elif event is CLOSED:
            return
        else:
            for name in session.wants():
                session.receive_data(name, left.pop(name, b""))


def _compare(folder: Path, memory: Mapping[str, Any], blocks: Mapping[str, bytearray]) -> Iterator[str]:
    """Where rebuilt RAM differs from the source's."""
    for idstr, entry in memory.items():
        rebuilt = blocks.get(idstr)
        if rebuilt is None:
            yield f"RAM block {idstr!a} was not sent"
            continue
        if len(rebuilt) != entry["used_length"]:
            yield f"RAM block {idstr!a}: {len(rebuilt)} bytes, the source has {entry['used_length']}"
            continue
        with (folder / entry["file"]).open("rb") as file:
            for start, length in entry["ranges"]:
                file.seek(start)
                for at in range(start, start + length, STRIDE):
                    size = min(STRIDE, start + length - at)
                    if file.read(size) != rebuilt[at : at + size]:
                        yield f"RAM block {idstr!a} differs at or behind offset {at:#x}"
                        break
