"""A short text of what went over a migration's channels, one for each direction.

    Transcripts(to_destination="0x00000000  QEVM version 3 …", to_source="rp  0x00000000  RpPong value=1 …")

Rule 1: the library's reader decodes; what it cannot read is shown as bytes. Where reading ends with an error
stand the error, its requirement and the bytes around it.
Rule 2: the bytes are hostile. A text has at most `LIMIT` characters, all of them printable; reading stops
behind `RECORDS` records; no bytes make this module raise.
Rule 3: the beginning and the end are shown; pages and devices in between are counted.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy.channels import parse_name
from qmig.legacy.connection import Told
from qmig.legacy.identify import ChannelKind, identify
from qmig.legacy.receiver import CLOSED
from qmig.legacy.session import MigrationSession
from qmig_conformance import artefacts
from qmig_conformance.play import Connect, Expect, Good, Play, Qmp, Send, Settle, Step
from qmig_conformance.report.excerpt import Excerpt, printable

#: characters of one text
LIMIT: Final = 3072
#: records that are read of one migration: a hostile stream may have one in each byte
RECORDS: Final = 20_000
#: channels that are read; QEMU opens 1 + 255 at most
CHANNELS: Final = 300
#: bytes shown of a stream that no reader is for
HEXDUMP: Final = 64
#: bytes of a difference that are shown
SOME: Final = 16
#: steps of a play that are named, and characters that they take
STEPS: Final = 16
WIDTH_OF_STEPS: Final = 500
#: what `session.finish` says, at most so many lines of it
LOOSE_ENDS: Final = 3

Data = bytes | bytearray | memoryview


class Transcripts(NamedTuple):
    """`to_destination`: what the source sent on all its channels; `to_source`: what came back."""

    to_destination: str
    to_source: str


class _Stream(NamedTuple):
    """One direction of a connection; `known` is its name for the session, empty where it has none."""

    name: str
    known: str
    back: bool
    data: memoryview
    offset: int


def transcripts(
    sent: Mapping[str, Data],
    returned: Mapping[str, Data],
    *,
    offsets: Mapping[str, int] | None = None,
    good: Mapping[str, Data] | None = None,
) -> Transcripts:
    """Decodes channels in memory. `sent` goes to the destination, `returned` comes back; both by name of the
    connection, which need not be one of the library's: then the first bytes say what it carries.

    `offsets` are those of the first byte of a stream inside its data (`file:PATH,offset=N`). With `good`, the
    channels of a good migration, the text begins with where `sent` differs from it."""
    streams = list(itertools.islice(_streams(sent, returned, offsets or {}), CHANNELS))
    excerpts = (
        Excerpt(sum(not stream.back for stream in streams)),
        Excerpt(sum(stream.back for stream in streams)),
    )
    for line in _differences(sent, good) if good else ():
        excerpts[0].preface(line)
    readable = [stream for stream in streams if stream.known and len(stream.data) > stream.offset]
    try:
        _read(readable, excerpts)
    except Exception as problem:  # noqa: BLE001 (a report is made of any bytes; the defect stands in it)
        excerpts[0].note(f"!! defect in qmig: {type(problem).__name__}: {problem}")
    for stream in streams:
        if stream not in readable:
            excerpts[stream.back].raw(stream.name, stream.data, HEXDUMP)
    return Transcripts(*(excerpt.text(LIMIT - WIDTH_OF_STEPS - 10) for excerpt in excerpts))


def transcripts_of_play(play: Play, answered: Mapping[str, Data], good: Good | None = None) -> Transcripts:
    """Decodes what a play sent and what came back (`Seen.answered`), as `transcripts` does; its steps come
    first."""
    sent: dict[str, bytearray] = {}
    for step in play.steps:
        if isinstance(step, Send):
            sent.setdefault(step.name, bytearray()).extend(step.data)
        elif isinstance(step, Connect):
            sent.setdefault(step.name, bytearray())
    if play.of_source:
        return _of_source(play, sent, answered)
    made = transcripts(sent, answered, good=good.channels if good else None)
    return _with_steps(map(_said, play.steps), made)


def _of_source(play: Play, sent: Mapping[str, Data], answered: Mapping[str, Data]) -> Transcripts:
    """The target sends the stream; what we sent is its return path, and the steps are on that side."""
    back = {"rp" if name == "main" else f"rp-{name}": data for name, data in sent.items()}
    forward, returned = transcripts(answered, back)
    steps = _with_steps(map(_said, play.steps), Transcripts(returned, ""))
    return Transcripts(forward, steps.to_destination)


def _said(step: Step) -> str:
    """`send main 0x1234`"""
    words = [type(step).__name__.lower()]
    if isinstance(step, Qmp):
        return f"{words[0]} {step.command}"
    if not isinstance(step, Settle):
        words.append(step.name)
    if isinstance(step, Send | Expect):
        words.append(f"{len(step.data):#x}")
    return " ".join(words)


def _with_steps(steps: Iterable[str], made: Transcripts) -> Transcripts:
    """Puts the steps (runs of the same are counted) before what was sent."""
    runs = [(words, len(list(run))) for words, run in itertools.groupby(steps)]
    said = [words + (f" ×{count}" if count > 1 else "") for words, count in runs]
    if len(said) > STEPS:
        said[STEPS // 2 : -STEPS // 2] = [f"… {len(said) - STEPS} more"]
    line = printable("; ".join(said))[:WIDTH_OF_STEPS]
    return made._replace(to_destination=f"steps: {line}\n{made.to_destination}") if said else made


def transcripts_of_folder(folder: Path) -> Transcripts:
    """Decodes what an artefact folder holds: a play (`qmig_conformance.artefacts`), or a recording (the
    channels that its meta.json lists). Raises OSError, KeyError or ValueError for a folder that is none."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if meta.get("schema") == artefacts.SCHEMA:
        end = ".received.bin"
        answered = {path.name[: -len(end)]: path.read_bytes() for path in sorted(folder.glob(f"*{end}"))}
        return transcripts_of_play(artefacts.load(folder)[0], answered)
    sent: dict[str, Data] = {}
    returned: dict[str, Data] = {}
    for entry in meta["channels"]:
        name = entry["name"]
        data = (folder / Path(entry["forward"]["file"]).name).read_bytes()
        (returned if _is_back(name) else sent)[name] = data
    return transcripts(
        sent, returned, offsets={entry["name"]: entry.get("offset", 0) for entry in meta["channels"]}
    )


def _is_back(name: str) -> bool:
    return name.endswith(".rp") or name.partition("-")[0] == "rp"


# -- what was changed --------------------------------------------------------------------------------


def _differences(sent: Mapping[str, Data], good: Mapping[str, Data]) -> Iterator[str]:
    """A line for each channel that is not as in the good migration, at most `LOOSE_ENDS`."""
    found = [
        f"{name}: {difference(sent[name], good[name]) if name in sent and name in good else only}"
        for names, only in ((good, "not connected"), (sent, "not in the good migration"))
        for name in names
        if sent.get(name) != good.get(name) and (names is good or name not in good)
    ]
    yield from found[:LOOSE_ENDS] or ("as in the good migration",)
    if len(found) > LOOSE_ENDS:
        yield f"… {len(found) - LOOSE_ENDS} more channels differ"


def difference(sent: Data, made_of: Data) -> str:
    """Where `sent` differs from `made_of`, in words: from the first byte that differs to the last."""
    data, good = bytes(sent), bytes(made_of)
    if data == good:
        return "as in the good migration"
    if not data:
        return "nothing was sent"
    first = _alike(data, good)
    if first == len(data):
        return f"cut at {first:#x}; the good stream has {len(good)} bytes"
    if first == len(good):
        return (
            f"{len(data) - first} bytes more than the good stream, from {first:#x} on: {_some(data[first:])}"
        )
    data, good = data[first:], good[first:]
    rest = _alike(data, good, backwards=True)
    new, old = data[: len(data) - rest], good[: len(good) - rest]
    if not old:
        return f"{len(new)} bytes put in at {first:#x}: {_some(new)}"
    if not new:
        return f"{len(old)} bytes left out at {first:#x}: {_some(old)}"
    return f"differs from the good stream at {first:#x}: {_some(old)} became {_some(new)}"


def _alike(one: bytes, other: bytes, *, backwards: bool = False) -> int:
    """How many bytes both begin (or end) with. By halving: slices are compared fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        a, b = (-middle, -low or None) if backwards else (low, middle)
        if one[a:b] == other[a:b]:
            low = middle
        else:
            high = middle - 1
    return low


def _some(data: bytes) -> str:
    return data.hex() if len(data) <= SOME else f"{data[:SOME].hex()}… ({len(data)} bytes)"


# -- which reader for which stream -------------------------------------------------------------------


def _streams(
    sent: Mapping[str, Data], returned: Mapping[str, Data], offsets: Mapping[str, int]
) -> Iterator[_Stream]:
    taken: set[tuple[str, int, int]] = set()
    known: dict[str, str] = {}
    for name, data in sent.items():
        known[name] = _known(name, data, taken)
        yield _Stream(name, known[name], False, memoryview(data), offsets.get(name, 0))
    for name, data in returned.items():
        own = name if _is_back(name) else known.get(name, "").replace(".rp", "") + ".rp"
        if not _claim(own, taken):
            own = ""
        yield _Stream(name, own, True, memoryview(data), offsets.get(name, 0))


def _claim(name: str, taken: set[tuple[str, int, int]]) -> bool:
    """Whether this is a name of the library's, and nothing else stands for the same."""
    try:
        kind, number, connection = parse_name(name)
    except LocalProtocolError:
        return False
    key = (kind + ".rp" * name.endswith(".rp") if kind == "tls" else kind, number, connection)
    fresh = key not in taken
    taken.add(key)
    return fresh


def _known(name: str, data: Data, taken: set[tuple[str, int, int]]) -> str:
    """The library's name for a connection: its own, or a free one of the kind that its bytes are of."""
    kind = identify(memoryview(data)[:64]).kind
    form = _FORMS.get(kind, "")
    if not _is_back(name) and _claim(name, taken):
        return name
    if not form:
        return ""
    tries = (form.format(number=number, at=f"-{number + 1}" if number else "") for number in range(CHANNELS))
    return next((name for name in tries if _claim(name, taken)), "")


#: how the channels of a kind are called, in the order of their connecting
_FORMS: Final = {
    ChannelKind.MAIN: "main{at}",
    ChannelKind.RECOVERY: "main{at}",
    ChannelKind.MULTIFD: "multifd-{number}",
    ChannelKind.PREEMPT: "preempt{at}",
    ChannelKind.TLS: "tls-{number}",
    ChannelKind.CPR: "cpr{at}",
}


# -- reading -----------------------------------------------------------------------------------------


def _read(streams: list[_Stream], excerpts: tuple[Excerpt, Excerpt]) -> None:
    """Tells the session's story; what broke is put where it broke."""
    session = MigrationSession()
    by_known = {stream.known: stream for stream in streams}
    for stream in streams:
        session.open(stream.known, offset=stream.offset)
    left = {stream.known: stream.data[stream.offset :] for stream in streams}
    story = _story(session, left)
    for item in itertools.islice(story, RECORDS):
        if isinstance(item, RemoteProtocolError):
            stream = by_known[item.channel or streams[0].known]
            excerpts[stream.back].broke(stream.name, item, stream.data)
        else:
            stream = by_known[item.channel]
            excerpts[stream.back].told(stream.name, item.event)
    for line in session.lines():
        stream = by_known[line.name]
        excerpts[stream.back].ended(stream.name, line.position, len(stream.data), whole=line.whole)
    if next(story, None) is not None:
        excerpts[0].note(f"reading stopped behind {RECORDS} records")
        return
    for finding in itertools.islice(_told_once(session), LOOSE_ENDS):
        excerpts[0].note(finding)


def _told_once(session: MigrationSession) -> Iterable[str]:
    return dict.fromkeys(printable(str(finding)) for finding in session.finish())


def _story(session: MigrationSession, left: dict[str, memoryview]) -> Iterator[Told | RemoteProtocolError]:
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
                session.receive_data(name, left.pop(name, memoryview(b"")))
