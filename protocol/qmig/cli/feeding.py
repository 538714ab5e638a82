"""Drives a session from open inputs: each channel gets its next bytes when the story needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qmig.cli.exits import CommandError
from qmig.cli.inputs import Input, neighbours, open_input, recognise
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy.channels import parse_name
from qmig.legacy.connection import Told
from qmig.legacy.receiver import CLOSED, NEED_DATA, Sentinel
from qmig.legacy.session import MigrationSession


def gather(
    path: str,
    channels: Sequence[str] = (),
    *,
    offset: int = 0,
    snapshot: str | None = None,
    alone: bool = False,
) -> list[Input]:
    """Opens FILE and its companions: those given as NAME=FILE, else those found beside it.

    Raises `CommandError` for what cannot be used."""
    source = open_input(path, offset=offset, snapshot=snapshot)
    beside = neighbours(path)
    source.channel = recognise(source, beside.channel)
    found = {source.channel: source}
    given = [_split(text) for text in channels]
    # offset and snapshot: the stream is in a container, whose neighbours are not its companions
    look = source.channel.startswith(("main", "tls")) and not (
        alone or channels or offset or snapshot is not None
    )
    for name, other in given or (beside.others.items() if look else ()):
        if name in found:
            raise CommandError(f"channel {name} is given twice: {found[name].path} and {other}")
        found[name] = _companion(name, other)
    return list(found.values())


def _split(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise CommandError(f"--channel {text!a}: expected NAME=FILE")
    try:
        parse_name(name)
    except LocalProtocolError as error:
        raise CommandError(f"--channel: {error.message}") from None
    return name, path


def _companion(name: str, path: str) -> Input:
    try:
        source = open_input(path)
    except CommandError as error:
        # a channel that carried nothing is a fact about the migration
        if not str(error).endswith("nothing to decode"):
            raise
        source = Input(path, iter(()), size=0)
    source.channel = name
    return source


def tell(session: MigrationSession, inputs: Sequence[Input]) -> Iterator[Told | RemoteProtocolError]:
    """The story, with each error at its place."""
    by_name = {source.channel: source for source in inputs}
    try:
        for source in inputs:
            session.open(source.channel, offset=source.offset)
    except LocalProtocolError as error:
        raise CommandError(f"--channel: {error.message}") from None
    while True:
        try:
            item = session.next_event()
        except RemoteProtocolError as error:
            yield error
            continue
        if not isinstance(item, Sentinel):
            yield item
        elif item is CLOSED:
            return
        else:
            assert item is NEED_DATA
            for name in session.wants():
                session.receive_data(name, by_name[name].next())
