"""What an operator, a QEMU and the agent's own work can do at each side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src
from qmig.testing.model.machines import Machines, Move, destination_hung_up
from qmig.testing.model.world import Side, World

S, D, SE, DE = src.State, dst.State, src.Event, dst.Event

_EARLY: Final = {S.HELLO, S.DESCRIBED, S.COMMITTED, S.BINDING}
_BINDS: Final = {*dst.LIVE, D.HELD_ALONE}
_LOADS: Final = {D.LOADING, D.HELD_ALONE}


# -- source -----------------------------------------------------------------------------------------------


def source(m: Machines, w: World) -> Iterator[Move]:
    side = w.source
    if side.state is S.IDLE:
        yield "S starts", m.source_fires(w, SE.START)
    if side.has("~describing"):
        after = w._replace(source=side.minus("~describing"))
        if side.state is S.HELLO:
            yield "S describes", m.source_fires(after, SE.DESCRIBE)
    if side.state is S.CLOSING:
        yield "S lingers no more", m.source_fires(w, SE.LINGER_OVER)
    if side.has("cut", "retry") and side.state not in {S.CLOSING, S.END}:
        yield "S gives up control", m.source_fires(w._replace(source=side.minus("retry")), SE.EOF)
    if side.state is S.FLOW:
        yield from _flow(m, w)
    if w.faults:
        yield from _source_faults(m, w._replace(faults=w.faults - 1))
    yield from _preempt(m, w)
    yield from _doubt(m, w)
    yield from _resuming(m, w)
    if w.data == "opening" and side.state in {S.BINDING, *src.LATE}:
        yield from _binding(m, w)


def _flow(m: Machines, w: World) -> Iterator[Move]:
    """What the operator may want while data flows."""
    side = w.source
    if side.has("can-postcopy") and not side.facts & {"cut", "postcopy"} and w.qemu_source == "active":
        after = m.source_fires(w, SE.TO_POSTCOPY)
        yield "S goes to postcopy", after._replace(source=after.source.plus("postcopy"))
    if side.has("recheck") and not side.facts & {"asked", "cut", "~asked", "switching"}:
        after = m.source_fires(w, SE.RECHECK)
        yield "S asks", after._replace(source=after.source.plus("asked", "hold", "~asked"))
    if side.has("hold", "at-switch") and not side.has("asked"):
        yield "S ends what is denied", m.source_fires(w, SE.CANCEL)


def _source_faults(m: Machines, less: World) -> Iterator[Move]:
    """What may go wrong at S, or be cancelled; `less` has one fault less left."""
    state = less.source.state
    if state not in {S.CLOSING, S.END}:
        yield "S is cancelled", m.source_fires(less, SE.CANCEL)
    if state in {*_EARLY, S.FLOW}:
        yield "S: devices change", m.source_fires(less, SE.MACHINE_CHANGED)
    if state in _EARLY:
        yield "S: QEMU fails", m.source_fires(less._replace(source_runs=False), SE.QEMU_FAILED)
    if state in {S.FLOW, *src.LATE} and less.data == "flow":
        yield "S: a data connection fails", m.source_fires(less._replace(data="broken"), SE.CHANNEL_LOST)
    if state is S.BINDING:
        yield "S: a setting is refused", m.source_fires(less, SE.SETTINGS_REFUSED)


def _preempt(m: Machines, w: World) -> Iterator[Move]:
    """In postcopy S's QEMU opens one more channel."""
    states = {S.FLOW, S.SWITCHED, S.GIVEN, S.GONE}
    if not m.features.preempt or w.data != "flow" or w.source.state not in states:
        return
    if w.postcopy and not w.source.has("~late"):
        after = m.source_fires(w, SE.LATE_CHANNEL)
        yield "S: QEMU opens preempt", after._replace(source=after.source.plus("~late"))
    if w.source.has("~late") and not w.source.has("~late-bound") and w.destination.state in _BINDS:
        after = m.destination_fires(m.source_fires(w, SE.CHANNEL_OK), DE.LATE_BOUND)
        yield "preempt is bound", after._replace(source=after.source.plus("~late-bound"))


def _doubt(m: Machines, w: World) -> Iterator[Move]:
    """Management settles a doubt by D's last record only."""
    if w.source.state is S.DOUBT:
        if w.destination.record == "ran" or (w.destination.state is D.RUNNING):
            yield "management: it is D's", m.source_fires(w, SE.OWNER_IS_DESTINATION)
        if w.destination.state in {D.END, D.LISTENING} and w.destination.outcome != "ran":
            yield "management: it is S's", m.source_fires(w, SE.OWNER_IS_SOURCE)


def _binding(m: Machines, w: World) -> Iterator[Move]:
    again = w.destination.has("rebinding")
    ready = w.destination.state in ({D.LOADING, D.TAKING, D.RUNNING} if again else {D.BINDING})
    if ready and not w.destination.has("~listen"):
        after = w._replace(data="bound", destination=w.destination.plus("bound"))
        after = m.destination_fires(m.source_fires(after, SE.CHANNEL_OK), DE.ALL_BOUND)
        yield "channels are bound", after
    if w.faults:
        broken = w._replace(faults=w.faults - 1, data="broken")
        yield "a channel cannot be had", m.source_fires(broken, SE.CHANNEL_LOST)
    elif not ready and w.destination.state in {D.END, D.CLOSING}:
        yield "nobody takes channels", m.source_fires(w._replace(data="broken"), SE.CHANNEL_LOST)


def _resuming(m: Machines, w: World) -> Iterator[Move]:
    """S connects again, D answers; what S makes of the answer is another move."""
    s, d = w.source, w.destination
    waits = any(word.startswith("resumed ") for word in w.to_source)
    able = (
        s.has("resume", "cut") and s.state in {S.FLOW, *src.LATE} and (s.has("retry") or s.state is S.DOUBT)
    )
    record = record_of(d)
    if not able or waits or record is None:
        return
    fresh = w._replace(
        link=True, to_source=(f"resumed {record}",), to_destination=(),
        destination=d.minus("cut", "~grant")._replace(reads=True),
    )  # fmt: skip
    if not s.has("rebinding") or d.state in {D.CLOSING, D.END}:
        yield "S resumes", m.destination_fires(fresh, DE.RESUMED)
    live = d.state not in {D.CLOSING, D.END}
    stands = w.data in {"broken", "opening", "bound"}
    if w.postcopy and live and record in {"taken", "ran"} and stands and s.state is not S.FLOW:
        again = fresh._replace(
            data="opening",
            source=s.plus("rebinding"),
            destination=fresh.destination.plus("rebinding").minus("~listen"),
        )
        yield "S resumes with data", m.destination_fires(again, DE.RESUMED)


def record_of(d: Side) -> str | None:
    """What `Destination.record` says."""
    if not d.has("resume", "ready"):
        return None
    if d.state in {D.CLOSING, D.END}:
        return {"ran": "ran", "spent": "returned"}.get(d.outcome)
    if d.state is D.HELD_ALONE:
        return "held" if d.has("loaded") else "loading"
    if d.state is D.LOADING and d.has("given"):
        return "taken"
    return {D.LOADING: "loading", D.HELD: "held", D.TAKING: "taken", D.RUNNING: "ran"}[d.state]  # type: ignore[index]


def source_qemu(m: Machines, w: World) -> Iterator[Move]:
    state, flows = w.source.state, w.data == "flow"
    if w.qemu_source == "active" and flows and state is S.FLOW:
        after = m.source_fires(w._replace(qemu_source="pre", source_runs=False), SE.QEMU_AT_SWITCH)
        if w.source.facts & {"cut", "hold"} and after.source.state is S.FLOW:
            after = after._replace(source=after.source.plus("at-switch"))
        yield "S: QEMU at pre-switchover", after
    if w.qemu_source == "device" and flows and not w.sent:
        yield "S: all is sent", w._replace(sent=True)
    # up to 10.0 postcopy-active does not wait for D
    there = w.postcopy or w.qemu_destination in {"loaded", "running"}
    if w.qemu_source == "device" and flows and w.sent and there:
        after = w._replace(qemu_source="owed" if w.postcopy else "done")
        if state in {S.FLOW, S.SWITCHED}:
            yield "S: QEMU cannot resume any more", m.source_fires(after, SE.QEMU_GAVE)
        elif state is S.DOUBT:
            yield "S: QEMU is done", m.source_fires(after, SE.QEMU_DONE)
        elif state is S.END:
            yield "S: QEMU is done", after
    if w.qemu_source == "finishing":
        after = w._replace(qemu_source="done")
        yield "S: QEMU is done", m.source_fires(after, SE.QEMU_DONE) if state in src.LATE else after
    yield from _source_qemu_fails(m, w)


def _source_qemu_fails(m: Machines, w: World) -> Iterator[Move]:
    state = w.source.state
    if w.qemu_source in {"active", "pre", "device", "owed"} and (w.data == "broken" or w.faults):
        left = w.faults if w.data == "broken" else w.faults - 1
        # what it stopped by itself it starts again; what was stopped by `stop` stays stopped
        runs = w.source_runs or not w.stopped
        failed = w._replace(qemu_source="failed", faults=left, data="broken", source_runs=runs, unseen=True)
        if state is S.SWITCHED:  # without hand-over `stop` is taken to be instantaneous (HS-HND-031)
            for event in (SE.QEMU_FAILED, SE.QEMU_RUNS):
                yield "S: QEMU fails, is stopped", m.source_fires(failed._replace(unseen=False), event)
        elif state not in {S.CLOSING, S.END}:
            yield "S: QEMU fails", failed
    if w.unseen:
        after = w._replace(unseen=False)
        seen = state in {S.FLOW, *src.LATE}
        yield "S sees its QEMU", m.source_fires(after, SE.QEMU_FAILED) if seen else after


# -- destination ------------------------------------------------------------------------------------------


def destination(m: Machines, w: World) -> Iterator[Move]:
    side = w.destination
    if side.state is D.JUDGING:
        yield "D has judged", m.destination_fires(w, DE.JUDGED)
    if side.state is D.APPLYING:
        after = m.destination_fires(w, DE.APPLIED)
        if side.has("mux"):
            after = after._replace(destination=after.destination.plus("bound"))
            after = m.destination_fires(after, DE.ALL_BOUND)
        yield "D has applied", after
    if w.data == "broken" and side.state in {D.BINDING, *_BINDS} and not side.has("~bound-lost"):
        after = m.destination_fires(w, DE.BOUND_LOST)
        yield "D: a channel ends", after._replace(destination=after.destination.plus("~bound-lost"))
    if side.has("~grant"):
        yield "D grants", _answer(w, "grant")
        yield "D denies", _answer(w, "deny")
    if side.state is D.CLOSING:
        yield "D lingers no more", m.destination_fires(w, DE.LINGER_OVER)
    stuck = w.qemu_destination == "dead" or (w.postcopy and w.data == "broken")
    if side.state is D.HELD_ALONE or (side.state is D.RUNNING and stuck):
        yield "management discards", m.destination_fires(w, DE.DISCARD)
    if w.faults:
        yield from _destination_faults(m, w._replace(faults=w.faults - 1))


def _destination_faults(m: Machines, less: World) -> Iterator[Move]:
    """What may go wrong at D, or be cancelled; `less` has one fault less left."""
    side = less.destination
    if side.state in {D.CLOSING, D.END}:
        return
    yield "D is cancelled", m.destination_fires(less, DE.CANCEL)
    if side.state is D.APPLYING:
        yield "D: a setting is refused", m.destination_fires(less, DE.SETTINGS_REFUSED)
    if side.state is D.BINDING and less.data in {"opening", "bound"}:
        yield "D: a bound channel ends", m.destination_fires(less._replace(data="broken"), DE.BOUND_LOST)
    if side.state in {D.LOADING, D.HELD}:
        yield "management discards", m.destination_fires(less, DE.DISCARD)
    if side.state not in {D.LISTENING, D.HELD_ALONE} and not side.has("cut"):
        closed = (*less.to_source, "eof") if less.link else less.to_source
        yield "D gives up control", destination_hung_up(m, less._replace(to_source=closed))
    if less.qemu_destination != "dead":
        died = less._replace(qemu_destination="dead", destination_runs=False, data="broken")
        yield "D: QEMU dies", m.destination_fires(died, DE.QEMU_DIED)


def _answer(w: World, word: str) -> World:
    w = w._replace(destination=w.destination.minus("~grant"))
    return w._replace(to_source=(*w.to_source, word)) if w.link and not w.destination.has("cut") else w


def destination_qemu(m: Machines, w: World) -> Iterator[Move]:
    side = w.destination
    if side.has("~listen") and side.state not in {D.CLOSING, D.END}:
        after = w._replace(destination=side.minus("~listen"))
        if w.qemu_destination == "none":
            after = after._replace(qemu_destination="listening")
        yield "D: QEMU listens", m.destination_fires(after, DE.LISTENS)
        if w.faults:
            refused = after._replace(faults=w.faults - 1, data="broken")
            yield "D: QEMU does not listen", m.destination_fires(refused, DE.LISTEN_REFUSED)
    if side.state in _LOADS:
        yield from _loading(m, w)
    if side.state is D.TAKING:
        runs = w._replace(qemu_destination="running", destination_runs=True)
        if w.qemu_destination == "loaded":
            yield "D: cont works", m.destination_fires(runs, DE.CONT_OK)
        if w.faults:
            yield "D: cont fails", m.destination_fires(w._replace(faults=w.faults - 1), DE.CONT_FAILED)
    there = not w.postcopy or w.qemu_source in {"finishing", "done"}
    if side.state is D.RUNNING and (there or (w.data == "flow" and w.qemu_source == "owed")):
        after = w._replace(qemu_source="finishing") if w.qemu_source == "owed" else w
        yield "D needs nothing more", m.destination_fires(after, DE.COMPLETE)


def _loading(m: Machines, w: World) -> Iterator[Move]:
    if w.qemu_destination == "listening" and w.sent and w.destination.has("handover"):
        yield "D: QEMU has loaded", w._replace(qemu_destination="loaded")
    elif w.qemu_destination == "listening" and w.sent:
        after = w._replace(qemu_destination="running", destination_runs=True)
        yield "D: loaded, the guest runs", m.destination_fires(after, DE.STARTED)
    if w.qemu_destination == "listening" and (w.faults if w.data != "broken" else not w.sent):
        left = w.faults if w.data == "broken" else w.faults - 1
        failed = w._replace(faults=left, qemu_destination="dead", data="broken")
        yield "D: load fails", m.destination_fires(failed, DE.LOAD_FAILED)
    if w.qemu_destination == "loaded" and not w.destination.has("loaded"):
        after = m.destination_fires(w, DE.LOADED)
        yield "D: loaded and held", after._replace(destination=after.destination.plus("loaded"))
