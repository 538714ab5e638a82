"""`--schema FILE`: what describes device state that its stream does not describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qmig import limits
from qmig.cli.exits import CommandError
from qmig.cli.feeding import gather, tell
from qmig.errors import ProtocolError
from qmig.legacy.sections import VmDescription
from qmig.legacy.session import MigrationSession
from qmig.legacy.vmstate.schema import DeviceSchema, schema_from_dump, schema_from_earlier

if TYPE_CHECKING:
    from collections.abc import Callable

#: every `-dump-vmstate` file has it
_DUMP_KEY: Final = b'"vmschkmachine"'


def load_schema(path: str) -> DeviceSchema:
    """From `-dump-vmstate` output, a vmdescription's JSON, or a stream that has one.

    Raises `CommandError` for a file that is none of these."""
    with Path(path).open("rb") as file:
        text = file.read(limits.VMDESC + 1)
    if text.lstrip()[:1] != b"{":
        text = _described(path)
    elif len(text) > limits.VMDESC:
        raise CommandError(f"--schema {path}: over {limits.VMDESC} bytes of JSON")
    parse: Callable[[bytes], DeviceSchema] = schema_from_dump if _DUMP_KEY in text else schema_from_earlier
    try:
        return parse(text)
    except ProtocolError as error:
        raise CommandError(f"--schema {path}: {error}") from None


def _described(path: str) -> bytes:
    """The vmdescription of a stream."""
    for item in tell(MigrationSession(), gather(path, alone=True)):
        event = getattr(item, "event", None)
        if isinstance(event, VmDescription):
            return bytes(event.json)
    raise CommandError(f"--schema {path}: a stream without a vmdescription describes nothing")
