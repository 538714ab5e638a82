"""What can happen in a situation: every message that can be read, everything that a QEMU, an operator or the
world can do. Each move is a name and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src
from qmig.testing.model.machines import Machines, Move, destination_hung_up, source_hung_up
from qmig.testing.model.sides import destination, destination_qemu, source, source_qemu
from qmig.testing.model.world import Side, World

S, D, SE, DE = src.State, dst.State, src.Event, dst.Event

_TO_SOURCE: Final = {
    "preamble": SE.PREAMBLE,
    "hello": SE.PEER_HELLO,
    "machine": SE.MACHINE,
    "accept": SE.ACCEPT,
    "ready": SE.READY,
    "grant": SE.GRANT,
    "deny": SE.DENY,
    "taken": SE.TAKEN,
    "returned": SE.RETURNED,
    "bye": SE.BYE,
    "bye-aborted": SE.BYE,
    "abort": SE.ABORT,
    "resumed loading": SE.RESUMED_LOADING,
    "resumed held": SE.RESUMED_LOADING,
    "resumed taken": SE.RESUMED_TAKEN,
    "resumed ran": SE.RESUMED_RAN,
    "resumed returned": SE.RESUMED_RETURNED,
}
_TO_DESTINATION: Final = {
    "preamble": DE.PREAMBLE,
    "hello": DE.HELLO,
    "machine": DE.MACHINE,
    "commit": DE.COMMIT,
    "ask": DE.ASK,
    "give": DE.GIVE,
    "bye": DE.BYE,
    "abort": DE.ABORT,
}
#: words that may turn out bad: the event in place of the good one
_BAD_TO_SOURCE: Final = {
    "answer": SE.ANSWER_BAD, "verdict": SE.VERDICT_NO, "accept": SE.ACCEPT_BAD, "ready": SE.READY_BAD,
    "machine": SE.MACHINE_BAD,
}  # fmt: skip
_BAD_TO_DESTINATION: Final = {
    "hello": DE.HELLO_BAD, "machine": DE.MACHINE_BAD, "commit": DE.COMMIT_BAD,
}  # fmt: skip


def moves(machines: Machines, world: World) -> Iterator[Move]:
    """All that can happen now."""
    for part in (_reading, source, source_qemu, destination, destination_qemu, _world):
        yield from part(machines, world)


# -- control ----------------------------------------------------------------------------------------------


def _reading(m: Machines, w: World) -> Iterator[Move]:
    if w.to_source and w.source.state is not S.IDLE:
        word, rest = w.to_source[0], w._replace(to_source=w.to_source[1:])
        yield from ((f"S reads {word}", after) for after in _source_reads(m, rest, word))
    deaf = w.destination.state in {D.JUDGING, D.APPLYING}
    if w.to_destination and not deaf:
        word, rest = w.to_destination[0], w._replace(to_destination=w.to_destination[1:])
        yield from ((f"D reads {word}", after) for after in _destination_reads(m, rest, word))
    if not w.link:
        if not w.source.has("cut") and w.source.state not in {S.IDLE, S.END}:
            yield "S sees the cut", source_hung_up(m, w)
        if not w.destination.has("cut") and w.destination.state not in {D.END, D.LISTENING} and not deaf:
            yield "D sees the cut", destination_hung_up(m, w)


def _source_reads(m: Machines, w: World, word: str) -> Iterator[World]:
    side = w.source
    if word.startswith("resumed ") and side.state is not S.END:
        yield m.source_fires(w._replace(source=side.minus("cut")._replace(reads=True)), _TO_SOURCE[word])
    elif side.state is S.END or side.has("cut") or not (side.reads or word == "eof"):
        yield w
    elif word == "eof":
        yield source_hung_up(m, w)
    elif word == "junk":
        w = w._replace(source=side._replace(reads=False))
        if side.state in src.LATE or side.state is S.CLOSING:
            closed = (*w.to_destination, "eof") if w.link else w.to_destination
            yield source_hung_up(m, w._replace(to_destination=closed))
        else:
            yield m.source_fires(w, SE.VIOLATION)
    elif side.state is S.CLOSING and word not in {"bye", "bye-aborted", "abort"}:
        yield w
    else:
        if (
            word in _BAD_TO_SOURCE
            and w.faults
            and not (word in {"accept", "ready"} and side.state in src.LATE)
        ):
            yield m.source_fires(w._replace(faults=w.faults - 1), _BAD_TO_SOURCE[word])
        if word == "bye-aborted":
            w = w._replace(source=side.plus("aborted"))
        if word in {"grant", "deny"}:
            w = w._replace(source=side.minus("asked", *(["hold"] if word == "grant" else [])))
        if word == "answer":
            w = w._replace(source=side.plus(*m.features.source_facts()))
        event = {"answer": SE.ANSWER, "verdict": SE.VERDICT_GO}.get(word) or _TO_SOURCE[word]
        yield m.source_fires(w, event)


def _destination_reads(m: Machines, w: World, word: str) -> Iterator[World]:
    side = w.destination
    if side.state is D.END or side.has("cut") or not (side.reads or word == "eof"):
        yield w
    elif word == "eof":
        yield destination_hung_up(m, w)
    elif word == "junk":
        late = side.state in {D.TAKING, D.RUNNING, D.HELD_ALONE, D.CLOSING}
        late |= side.state is D.LOADING and side.has("given")
        w = w._replace(destination=side._replace(reads=False))
        if side.state is D.LISTENING:
            yield m.destination_fires(w, DE.STRAY)
        elif late:
            closed = (*w.to_source, "eof") if w.link else w.to_source
            yield destination_hung_up(m, w._replace(to_source=closed))
        else:
            yield m.destination_fires(w, DE.VIOLATION)
    elif side.state is D.CLOSING and word not in {"bye", "abort"}:
        yield w
    else:
        if word in _BAD_TO_DESTINATION and w.faults:
            yield m.destination_fires(w._replace(faults=w.faults - 1), _BAD_TO_DESTINATION[word])
        if word == "hello" and m.features.probe:
            w = w._replace(destination=side.plus("probe"))
        if word == "commit":
            facts = m.features.source_facts() - {"retry", "can-postcopy"}
            w = w._replace(destination=side.plus(*facts))
        yield m.destination_fires(w, _TO_DESTINATION[word])


# -- the world --------------------------------------------------------------------------------------------


def _world(m: Machines, w: World) -> Iterator[Move]:
    alive = w.source.state not in {S.IDLE, S.END} or w.destination.state not in {D.LISTENING, D.END}
    if not w.faults or not alive:
        return
    less = w._replace(faults=w.faults - 1)
    if w.link and w.source.state is not S.IDLE:
        after = less._replace(link=False, to_source=(), to_destination=())
        yield "control is cut", after._replace(data="broken") if w.source.has("mux") else after
    if w.data == "flow":
        yield "data is cut", less._replace(data="broken")
    if m.features.violations:
        if w.link and w.to_source[:1] != ("eof",) and not "".join(w.to_source).startswith("resumed "):
            yield "junk to S", less._replace(to_source=("junk", *w.to_source[1:]))
        if w.link and w.to_destination[:1] != ("eof",) and w.source.state is not S.IDLE:
            yield "junk to D", less._replace(to_destination=("junk", *w.to_destination[1:]))
    if m.features.crashes:
        yield from _crashes(m, less)


def _crashes(m: Machines, w: World) -> Iterator[Move]:
    """An agent dies and is started again: its session is gone, its record and its QEMU are not."""
    gone = w._replace(link=False, to_source=(), to_destination=(), data="broken")  # it carried the data
    s, d = w.source, w.destination
    if s.state not in {S.IDLE, S.END}:
        keeps = (s.facts - {"retry", "resume"}) | {"cut"}
        stands = w.qemu_source == "failed" and not w.source_runs
        given = (
            s.record == "given" or w.qemu_source in {"finishing", "done", "owed", "device", "pre"} or stands
        )
        if given:  # HS-HND-014: also without a record, where QEMU is no longer sure to run
            back = Side(S.DOUBT, keeps, "", reads=False, record="given")
            yield (
                "S's agent is restarted, in doubt",
                gone._replace(source=back, source_runs=False, stopped=True),
            )
        else:
            runs = w.source_runs or w.qemu_source in {"active", "failed"}
            back = Side(S.END, keeps, "here", reads=False)
            qemu = "idle" if w.qemu_source == "active" else w.qemu_source
            yield (
                "S's agent is restarted, cancels",
                gone._replace(source=back, source_runs=runs, qemu_source=qemu, data="broken", unseen=False),
            )
    if d.state not in {D.LISTENING, D.END}:
        keeps = (d.facts - {"resume"}) | {"cut"}
        if d.record == "taken" and w.qemu_destination == "loaded":  # HS-HND-015
            back = Side(D.TAKING, keeps, "", reads=False, record="taken")
            yield "D's agent is restarted, goes on", gone._replace(destination=back)
        elif d.record == "ran":
            back = Side(D.RUNNING, keeps, "", reads=False, record="ran")
            yield "D's agent is restarted, runs on", gone._replace(destination=back)
        else:
            back = Side(D.END, keeps, "spent", reads=False, record="returned")
            yield (
                "D's agent is restarted, ends its QEMU",
                gone._replace(
                    destination=back, qemu_destination="dead", destination_runs=False, data="broken"
                ),
            )
