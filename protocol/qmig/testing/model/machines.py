"""What a row does in the model: the same table, the same order, with QEMUs of one word."""

from __future__ import annotations

from typing import Any

from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src
from qmig.handshake.table import Row, Table
from qmig.testing.model.world import Features, Side, World

S, D = src.State, dst.State
SE, DE = src.Event, dst.Event
SourceTable = Table[src.State, src.Event, src.Action]
DestinationTable = Table[dst.State, dst.Event, dst.Action]

_SOURCE_SAYS: dict[src.Action, tuple[str, ...]] = {
    src.Action.SEND_HELLO: ("preamble", "hello"),
    src.Action.SEND_MACHINE: ("machine",),
    src.Action.SEND_COMMIT: ("commit",),
    src.Action.SEND_ABORT: ("abort",),
    src.Action.SEND_BYE: ("bye",),
    src.Action.SEND_GIVE: ("give",),
    src.Action.SEND_ASK: ("ask",),
}
_DESTINATION_SAYS: dict[dst.Action, tuple[str, ...]] = {
    dst.Action.SEND_VERDICT: ("verdict",),
    dst.Action.SEND_ACCEPT: ("accept",),
    dst.Action.SEND_READY: ("ready",),
    dst.Action.SEND_TAKEN: ("taken",),
    dst.Action.SEND_RETURNED: ("returned",),
    dst.Action.SEND_ABORT: ("abort",),
}
_LAST = {dst.Action.SEND_RETURNED, dst.Action.SEND_ABORT, dst.Action.SEND_BYE}
_UNDER_WAY = {"active", "pre", "device"}


#: what happens, and what comes of it
Move = tuple[str, World]


class NoRow(Exception):
    """Something happened for which the table has no row."""


class Machines:
    """Both tables, and which of their rows were used."""

    def __init__(self, features: Features, source: SourceTable, destination: DestinationTable) -> None:
        self.features = features
        self.source = source
        self.destination = destination
        self.used: set[Row[Any, Any, Any]] = set()

    # -- firing -------------------------------------------------------------------------------------------

    def source_fires(self, world: World, event: src.Event) -> World:
        side = world.source
        row = self.source.find(side.state, event, side.facts)  # type: ignore[arg-type]
        if row is None:
            raise NoRow(f"source: {event.value} in {side.state.name}")
        self.used.add(row)
        before = side.state
        world = world._replace(source=side._replace(state=row.next, outcome=row.outcome or side.outcome))
        for action in row.actions:
            world = self._source_does(world, action)
        if row.next is S.CLOSING and before is not S.CLOSING and world.source.has("cut"):
            world = self.source_fires(world, src.Event.GONE)
        if row.next is S.END and before is not S.END:
            if world.link:  # also a connection over which it was about to resume
                world = world._replace(to_destination=(*world.to_destination, "eof"))
            if world.source.outcome != "moved" or world.data != "flow":  # its data connections go with it
                world = world._replace(data="broken")
        return world

    def destination_fires(self, world: World, event: dst.Event) -> World:
        side = world.destination
        row = self.destination.find(side.state, event, side.facts)  # type: ignore[arg-type]
        if row is None:
            raise NoRow(f"destination: {event.value} in {side.state.name}")
        self.used.add(row)
        before = side.state
        world = world._replace(destination=side._replace(state=row.next, outcome=row.outcome or side.outcome))
        for action in row.actions:
            world = self._destination_does(world, action)
        if row.next is D.CLOSING and before is not D.CLOSING and world.destination.has("cut"):
            world = self.destination_fires(world, dst.Event.GONE)
        if row.next is D.END and before is not D.END:
            world = say(world, "destination", "eof")
        return world

    # -- doing --------------------------------------------------------------------------------------------

    def _source_does(self, world: World, action: src.Action) -> World:
        side = world.source
        if action in _SOURCE_SAYS:
            return say(world, "source", *_SOURCE_SAYS[action])
        match action:
            case src.Action.ASK_DESCRIPTION:
                return world._replace(source=side.plus("~describing"))
            case src.Action.OPEN_CHANNELS:
                return world._replace(data="bound" if side.has("mux") else "opening")
            case src.Action.MIGRATE:
                return world._replace(
                    qemu_source="active", data="flow" if world.data == "bound" else world.data
                )
            case src.Action.START_POSTCOPY:
                return world._replace(postcopy=True, source=side.plus("~ask-postcopy"))
            case src.Action.CUT_DATA:
                return world._replace(data="broken")
            case src.Action.RECORD_GIVEN:
                return world._replace(source=side._replace(record="given"))
            case src.Action.RECORD_BACK:
                return world._replace(source=side._replace(record="back"))
        return self._source_guest(world, action)

    def _source_guest(self, world: World, action: src.Action) -> World:
        """What is done to the guest, and to the QEMU under it."""
        side = world.source
        match action:
            case src.Action.STOP_GUEST:
                return world._replace(source_runs=False, stopped=True)
            case src.Action.CONTINUE_SWITCH:
                here = world.qemu_source
                return world._replace(
                    qemu_source="device" if here == "pre" else here,
                    source=side.minus("at-switch").plus("switching"),
                )
            case src.Action.CANCEL_MIGRATION if world.qemu_source in _UNDER_WAY:
                return world._replace(qemu_source="idle", source_runs=not world.stopped, unseen=False)
            case src.Action.RESUME_GUEST if world.qemu_source != "owed":
                return world._replace(source_runs=True, stopped=False)
            case src.Action.RESUME_MIGRATION:
                return world._replace(qemu_source="owed", data="flow", source=side.minus("rebinding"))
        return world

    def _destination_does(self, world: World, action: dst.Action) -> World:
        side = world.destination
        if action in _DESTINATION_SAYS or action is dst.Action.SEND_BYE:
            return self._destination_says(world, action)
        match action:
            case dst.Action.SEND_ANSWER:
                peer = ("machine",) if self.features.peer else ()
                return say(world, "destination", "preamble", "hello", "answer", *peer)
            case dst.Action.REPEAT:
                return say(world, "destination", *world.last)
            case dst.Action.LISTEN | dst.Action.RECOVER:
                return world._replace(destination=side.plus("~listen"))
            case dst.Action.JUDGE_STATE:
                return world._replace(destination=side.plus("~grant"))
            case dst.Action.CUT_DATA:
                return world._replace(data="broken")
            case dst.Action.DISCARD_GUEST:
                return world._replace(qemu_destination="dead", destination_runs=False, data="broken")
            case dst.Action.RECORD_TAKEN:
                return world._replace(destination=side.plus("given")._replace(record="taken"))
            case dst.Action.RECORD_RAN:
                return world._replace(destination=side._replace(record="ran"))
            case dst.Action.RECORD_RETURNED:
                return world._replace(destination=side._replace(record="returned"))
        return world

    def _destination_says(self, world: World, action: dst.Action) -> World:
        side = world.destination
        words = _DESTINATION_SAYS.get(action, ("bye" if side.outcome == "ran" else "bye-aborted",))
        if action is dst.Action.SEND_READY:
            world = world._replace(destination=side.plus("ready").minus("rebinding", "~recovering"))
        if action in _LAST:
            world = world._replace(last=world.last + words)
        return say(world, "destination", *words)


def say(world: World, side: str, *words: str) -> World:
    """Puts words on control, if there is one."""
    me: Side = getattr(world, side)
    if me.has("cut") or not world.link:
        return world
    if side == "source":
        return world._replace(to_destination=world.to_destination + words)
    return world._replace(to_source=world.to_source + words)


def source_hung_up(m: Machines, w: World) -> World:
    if w.source.has("mux"):  # the pipe is gone, and all that was in it
        w = w._replace(data="broken")
    return m.source_fires(w._replace(source=w.source.plus("cut")._replace(reads=False)), SE.EOF)


def destination_hung_up(m: Machines, w: World) -> World:
    side = w.destination.plus("cut")._replace(reads=False)
    w = w._replace(destination=side, data="broken" if side.has("mux") else w.data)
    return m.destination_fires(w, DE.STRAY if side.state is D.LISTENING else DE.EOF)
