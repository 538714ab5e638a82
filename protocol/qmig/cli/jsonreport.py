"""The JSON document of `qmig decode --json` (`spec/schema/decode.json`), written as the story is told.

Rule 1: nothing is kept but what sums up RAM, so a document of any length is written in the
memory of a short one.
Rule 2: the document does not depend on how the input was cut into chunks: batches of pages
that follow each other on one channel are one event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from qmig._wire import Record
from qmig.cli.tally import Tally
from qmig.errors import RemoteProtocolError
from qmig.legacy.connection import Told

if TYPE_CHECKING:
    from qmig.cli.extract import Extracted
    from qmig.cli.inputs import Input
    from qmig.legacy.sections import SectionFull
    from qmig.legacy.session import MigrationSession
    from qmig.legacy.verify.findings import Finding

SCHEMA: Final = "qmig/decode/1"
#: bytes of one value that are spelled out; of longer ones the length is told
LONGEST: Final = 1024
#: packets are told one by one, other carriers of pages by their sums
_PACKET: Final = "MultifdPacket"


class JsonReport:
    """Writes one document."""

    def __init__(self, out: TextIO, session: MigrationSession) -> None:
        self._out = out
        self._session = session
        self._separator = "\n"
        self._pages: dict[str, Any] | None = None  # the event that gathers page batches
        self._tally = Tally()
        self._totals: dict[int, Tally] = {}
        self._full: SectionFull | None = None
        self._errors: list[RemoteProtocolError] = []

    def begin(self, inputs: list[Input]) -> None:
        rows = [
            {
                "channel": source.channel,
                "file": source.path,
                "offset": source.offset,
                "size": source.size,
                "container": source.note or None,
            }
            for source in inputs
        ]
        self._out.write(f'{{"schema": {json.dumps(SCHEMA)},\n"inputs": {json.dumps(rows)},\n"events": [')

    def told(self, told: Told) -> None:
        event = told.event
        name = type(event).__name__
        if name != _PACKET:
            gathered = self._gather(told)
            if gathered:
                return
        self._flush()
        item = {
            "channel": told.channel,
            "attempt": told.attempt,
            "offset": event.offset,
            "size": event.size,
            "record": name,
        }
        if name == _PACKET:
            self._totals.setdefault(told.attempt, Tally()).count(told)
            item["pass"] = told.round
        item["fields"] = _fields(event)
        if name == "SectionFull":
            self._full = cast("SectionFull", event)
        elif name == "DeviceState":
            item["device"] = self._device(told)
        self._write(item)

    def broke(self, error: RemoteProtocolError) -> None:
        self._flush()
        self._errors.append(error)

    def finish(self, findings: Sequence[Finding], extracted: Sequence[Extracted]) -> None:
        self._flush()
        channels = [
            {
                "channel": line.name,
                "consumed": (line.error.offset if line.error else line.position) - line.offset,
                "events": line.events,
                "whole": line.whole,
            }
            for line in self._session.lines()
        ]
        found = [
            *(_problem(error, self._session.overcome(error)) for error in self._errors),
            *(_problem(finding, False) for finding in findings),
        ]
        tail = {
            "channels": channels,
            "ram": self._ram(),
            "extracted": [block._asdict() for block in extracted],
            "findings": found,
            "good": all(row["overcome"] for row in found),
        }
        self._out.write("\n],\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in tail.items()))
        self._out.write("}\n")
        self._out.flush()

    # -- events ----------------------------------------------------------------------

    def _gather(self, told: Told) -> bool:
        """Adds a carrier of pages to the event that sums them up; whether it is one."""
        counted = Tally()
        if not counted.count(told):
            return False
        pages = self._pages
        if pages is None or (pages["channel"], pages["attempt"]) != (told.channel, told.attempt):
            self._flush()
            pages = self._pages = {
                "channel": told.channel,
                "attempt": told.attempt,
                "offset": told.event.offset,
                "size": 0,
                "record": "pages",
            }
        pages["size"] += told.event.size
        self._tally.merge(counted)
        return True

    def _flush(self) -> None:
        pages, self._pages = self._pages, None
        if pages is None:
            return
        tally, self._tally = self._tally, Tally()
        pages["pages"] = [
            {"block": block, "pass": number, **counts} for (block, number), counts in tally.rows.items()
        ]
        self._totals.setdefault(pages["attempt"], Tally()).merge(tally)
        self._write(pages)

    def _device(self, told: Told) -> dict[str, Any]:
        from qmig.cli.devicetext import decoded, device_json

        assert self._full is not None
        state = self._session.attempts[told.attempt - 1].state
        return device_json(decoded(state, self._full, cast(Any, told.event)))

    def _ram(self) -> list[dict[str, Any]]:
        rows = []
        for attempt in self._session.attempts:
            tally = self._totals.get(attempt.number, Tally())
            for block in attempt.state.blocks.values():
                rows.append(
                    {
                        "attempt": attempt.number,
                        "block": block.idstr,
                        "used_length": block.used_length,
                        "page_size": block.page_size,
                        "gpa": block.gpa,
                        "passes": [
                            {"pass": number, **counts}
                            for (name, number), counts in sorted(
                                tally.rows.items(), key=lambda row: row[0][1]
                            )
                            if name == block.idstr
                        ],
                    }
                )
        return rows

    def _write(self, item: dict[str, Any]) -> None:
        self._out.write(self._separator + json.dumps(item))
        self._separator = ",\n"


def _problem(problem: RemoteProtocolError | Finding, overcome: bool) -> dict[str, Any]:
    return {
        "channel": problem.channel,
        "offset": problem.offset,
        "record": problem.record,
        "message": problem.message,
        "requirement": problem.requirement,
        "overcome": overcome,
    }


def _fields(event: Record) -> dict[str, Any]:
    return {name: _value(value) for name, value in event.values().items()}


def _value(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        size = len(value)
        return {"hex": bytes(value).hex()} if size <= LONGEST else {"bytes": size}
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    return value
