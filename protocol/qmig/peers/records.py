"""Durable records of who runs the guest (HS-HND-013): one small file per session and side.

    store = RecordStore(Path("/var/lib/qmig"), Side.DESTINATION)
    store.write(session, Record.TAKEN, run=True)     # on disk when this returns
    store.read(session)                              # Entry(record=Record.TAKEN, run=True), or None

Calls block until the disk has it: a trio task calls them in a thread.
"""

from __future__ import annotations

import enum
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmig.errors import EnvironmentProblem, LocalProtocolError
from qmig.handshake.codes import Record

#: bytes; a longer file is none of ours
_LONGEST: Final = 256


class Side(enum.StrEnum):
    """Whose records: a host can be both ends of one session."""

    SOURCE = "source"
    DESTINATION = "destination"


#: what may be written behind what; what has nothing behind it is a promise
_AFTER: Final[Mapping[Side, Mapping[Record | None, tuple[Record, ...]]]] = {
    Side.SOURCE: {None: (Record.GIVEN, Record.BACK), Record.GIVEN: (Record.BACK,), Record.BACK: ()},
    Side.DESTINATION: {
        None: (Record.TAKEN, Record.RAN, Record.RETURNED),
        Record.TAKEN: (Record.RAN, Record.RETURNED),
        Record.RAN: (),
        Record.RETURNED: (),
    },
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a file says. `run`: whether the guest ran before the migration, as GIVE tells."""

    record: Record
    run: bool


class RecordStore:
    """The records of one side in a directory that is there. One process writes a session's record."""

    def __init__(self, directory: Path, side: Side) -> None:
        self._directory = directory
        self._side = side

    def read(self, session: bytes) -> Entry | None:
        """The last record, or None if there never was one. Raises EnvironmentProblem for a file that cannot
        be read: it may hide any record, so it is never taken for none (HS-HND-014, -015)."""
        path = self._path(session)
        try:
            with path.open("rb") as file:
                return self._entry(file.read(_LONGEST + 1))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as problem:
            raise EnvironmentProblem(f"record {path}: {problem}") from problem

    def write(self, session: bytes, record: Record, *, run: bool) -> None:
        """Returns when the record is on disk; the same one again is written again. Raises
        LocalProtocolError for one that may not follow the last, EnvironmentProblem where the disk fails:
        then what depends on the record must not be done."""
        last = self.read(session)
        before = last.record if last else None
        if record is not before and record not in _AFTER[self._side][before]:
            raise LocalProtocolError(
                f"'{record.value}' behind {before and before.value!r} at the {self._side.value}",
                requirement="HS-HND-013",
            )
        data = json.dumps({"record": record.value, "run": run}).encode() + b"\n"
        try:
            self._replace(self._path(session), data)
        except OSError as problem:
            raise EnvironmentProblem(f"record {self._path(session)}: {problem}") from problem

    def _path(self, session: bytes) -> Path:
        return self._directory / f"{session.hex()}.{self._side.value}"

    def _entry(self, data: bytes) -> Entry:
        found = json.loads(data) if len(data) <= _LONGEST else None
        match found:
            case {"record": str(word), "run": bool(run)} if Record(word) in _AFTER[self._side]:
                return Entry(record=Record(word), run=run)
        raise ValueError("it is not a record of this side")

    def _replace(self, path: Path, data: bytes) -> None:
        """All of the new or all of the old, whenever the power fails."""
        handle, name = tempfile.mkstemp(prefix=".record-", dir=self._directory)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
