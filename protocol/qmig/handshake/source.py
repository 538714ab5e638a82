"""The source's end of a session, without I/O: what it reads, decides, sends, and asks its user to do.

    source = Source(config, session=…, nonce=…, grease=Grease(…))
    source.start()
    transport.send(source.data_to_send())
    source.receive_data(received)                        # b"" at the end of control
    while (event := source.next_event()) is not NEED_DATA:
        match event: case Do(action=Action.MIGRATE): ...

The table (`source_table`) decides; this class tells it what happened and does what its rows say. What needs
the world is handed to the user as `Do(action)`, and what came of it is told back by a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from qmig.errors import LocalProtocolError
from qmig.handshake import description, negotiate, policy, transcript
from qmig.handshake.binding import Credentials, SourceBinding
from qmig.handshake.codes import AbortCode, ByeOutcome, ChannelKind, Profile, Record
from qmig.handshake.config import SourceConfig
from qmig.handshake.control import Control, Incoming
from qmig.handshake.events import Agreement, Do, Heard, PlanEntry, Reason, own
from qmig.handshake.frames import HandshakeError
from qmig.handshake.grease import Grease
from qmig.handshake.machine import CUT, Machine, Words
from qmig.handshake.messages import (
    Accept,
    Answer,
    Bye,
    Commit,
    Finding,
    Give,
    Hello,
    Offer,
    Ready,
    SwitchAsk,
    SwitchGrant,
    Taken,
    Verdict,
)
from qmig.handshake.messages import Machine as Description
from qmig.handshake.negotiate import Refused
from qmig.handshake.preamble import Role
from qmig.handshake.resume import SourceResume
from qmig.handshake.source_table import LATE, Action, Event, State

_RESUMABLE: Final = frozenset({State.FLOW, *LATE})
WORDS: Final = Words[State, Event](
    preamble=Event.PREAMBLE,
    abort=Event.ABORT,
    eof=Event.EOF,
    gone=Event.GONE,
    violation=Event.VIOLATION,
    linger_over=Event.LINGER_OVER,
    closing=State.CLOSING,
    end=State.END,
    deaf=frozenset({State.IDLE, State.END}),
    late=frozenset(LATE),
    turns={
        State.HELLO: (Hello, Answer, Description),
        State.DESCRIBED: (Verdict,),
        State.COMMITTED: (Accept,),
        State.BINDING: (Ready,),
        State.FLOW: (SwitchGrant,),
        State.SWITCHED: (Bye, Ready),
        State.GIVEN: (Taken, Ready),
        State.GONE: (Bye, Ready),
        State.DOUBT: (Bye, Ready),
        State.CLOSING: (Bye,),
    },
)
#: D's record, as RESUME-ANSWER tells it
_RESUMED: Final = {
    Record.LOADING: Event.RESUMED_LOADING,
    Record.HELD: Event.RESUMED_LOADING,
    Record.TAKEN: Event.RESUMED_TAKEN,
    Record.RAN: Event.RESUMED_RAN,
    Record.RETURNED: Event.RESUMED_RETURNED,
}


class Source(Machine[State, Event, Action]):
    """One attempt. `session` (16 random bytes) names it, `nonce` (32) makes its proofs its own."""

    words: ClassVar[Words[Any, Any]] = WORDS

    def __init__(self, config: SourceConfig, *, session: bytes, nonce: bytes, grease: Grease) -> None:
        control = Control(Role.SOURCE, Role.DESTINATION, reserved=grease.reserved())
        super().__init__(config.table, State.IDLE, control)
        self.config = config
        self.session = session
        self.nonce = nonce
        self.agreement = Agreement(agreed={})
        self.verdict: Verdict | None = None
        self.peer: Hello | None = None
        #: classes of the description that D wants in full; None is all
        self.need: tuple[str, ...] | None = None
        self._grease = grease
        self._offers: dict[str, Offer] = {**config.offers, **grease.offer()}
        self._answer: Answer | None = None
        self._described = False  # D has sent its description
        self._secret = b""
        self._admitted: tuple[int, ...] = ()
        self._hellos = b"", b""  # both directions' hashes behind HELLO
        self._verdict_hash = b""  # D's direction behind VERDICT
        self._commit_hash = b""  # ours behind COMMIT, or RESUME
        self._bound: set[tuple[str, int]] = set()
        self._ask = SwitchAsk(state=b"")
        self._run = True
        self._veto: tuple[Finding, ...] = ()
        if config.profile is Profile.PROBE:
            self.facts.add("probe")

    # -- what the user tells ------------------------------------------------------------------------------

    def start(self) -> None:
        """The connection will be made now."""
        self._local(Event.START)

    def describe(self, data: bytes, *, schema: int = 1) -> None:
        """The description that was asked for: deterministic CBOR of the classes that D needs."""
        message = description.message(data, schema=schema)
        self._local(Event.DESCRIBE, message)

    def veto(self, findings: Sequence[Finding]) -> None:
        """Our judge finds D's description wanting (`description.peer`): whatever D's verdict is, S aborts."""
        self._veto = tuple(findings)

    def settings_refused(self, text: str) -> None:
        """Our QEMU refused a setting."""
        self._local(Event.SETTINGS_REFUSED, own(AbortCode.SETTINGS_FAILED, text))

    def binding(self, kind: str, index: int, exporter: bytes = b"") -> SourceBinding:
        """The beginning of one planned data connection. Give its end to `channel_bound`."""
        if (kind, index) not in {entry[:2] for entry in self.agreement.plan} or not self._secret:
            raise LocalProtocolError(f"channel {kind}/{index} is not planned", requirement="HS-CHN-001")
        return SourceBinding(Credentials(self.session, self._secret, exporter), kind, index)

    def channel_bound(self, binding: SourceBinding) -> None:
        """What came of a binding."""
        if binding.bound:
            self._bound.add((binding.kind, binding.index))
            self._local(Event.CHANNEL_OK)
        else:
            assert binding.reason is not None
            self._local(Event.CHANNEL_LOST, binding.reason)

    def channel_lost(self, text: str) -> None:
        """A data connection could not be made, or ended too early."""
        self._local(Event.CHANNEL_LOST, own(AbortCode.CHANNEL_MISSING, text))

    def late_channel(self, kind: str, index: int) -> None:
        """Our QEMU has opened a channel that is planned for later."""
        self._local(Event.LATE_CHANNEL, (kind, index))

    def qemu_failed(self, text: str) -> None:
        self._local(Event.QEMU_FAILED, own(AbortCode.SOURCE_FAILED, text))

    def machine_changed(self, text: str) -> None:
        """Devices were added or removed since the machine was described."""
        self._local(Event.MACHINE_CHANGED, own(AbortCode.MACHINE_CHANGED, text))

    def qemu_at_switch(self) -> None:
        """Our QEMU waits at pre-switchover."""
        waits = bool({CUT, "hold"} & self.facts)
        self._local(Event.QEMU_AT_SWITCH)
        if waits:
            self.facts.add("at-switch")

    def to_postcopy(self, *, run: bool) -> None:
        """The operator wants postcopy; `run`: whether the guest runs now, before it is stopped."""
        self._local(Event.TO_POSTCOPY)
        self.facts.add("postcopy")
        self._run = run

    def qemu_gave(self, *, run: bool = True) -> None:
        """Our QEMU can no longer resume by itself: completed and postmigrate, or postcopy-active. `run`:
        whether the guest ran before the migration; in postcopy, what `to_postcopy` was told counts."""
        if "postcopy" not in self.facts:
            self._run = run
        self._local(Event.QEMU_GAVE)

    def qemu_runs(self) -> None:
        """Our QEMU runs the guest, and nobody told it to."""
        self._local(Event.QEMU_RUNS)

    def qemu_done(self) -> None:
        self._local(Event.QEMU_DONE)

    def recheck(self, state: bytes) -> None:
        """Asks D whether it can still load a machine in this state (`recheck.v1`). The switch waits for a
        "yes" from here on."""
        self._ask = SwitchAsk(state=state)
        self._local(Event.RECHECK)
        self.facts |= {"asked", "hold"}

    def resume(self, *, nonce: bytes, grease: Grease, data: bool = False) -> SourceResume:
        """The beginning of another control connection for this session (`resume.v1`); `data`: with its
        channels, as always while READY has not come. Give its end to `resumed`."""
        if "resume" not in self.facts or self.state not in _RESUMABLE:
            raise LocalProtocolError("this session cannot be resumed now", requirement="HS-RES-001")
        return SourceResume(
            session=self.session, secret=self._secret, agreed=self.agreement.agreed, nonce=nonce,
            grease=grease, data=data or "rebinding" in self.facts, majors=self.config.majors,
        )  # fmt: skip

    def resumed(self, resume: SourceResume) -> None:
        """What came of a resumption: the session goes on over its connection, if it is `done`."""
        self._adopt(resume.control)
        self._secret = resume.next_secret
        self._commit_hash = resume.resume_hash
        event = _RESUMED.get(Record(resume.record))
        if resume.data:
            self._bound.clear()
            self.facts.add("rebinding")
        if event is None or not self._fire(event):
            text = f"a session resumed with record {resume.record} in state {self.state.value}"
            self._hung_up(own(AbortCode.UNEXPECTED_MESSAGE, text))
        elif resume.data:
            plan = tuple(entry for entry in self.agreement.plan if entry[0] != ChannelKind.MULTIFD)
            self._tell(Do(action=Action.OPEN_CHANNELS, detail=replace(self.agreement, plan=plan)))

    def cancel(self) -> None:
        """The operator ends the attempt; refused, and said so by a `Do`, where it is too late."""
        self._local(Event.CANCEL, own(AbortCode.CANCELLED, "cancelled at the source"))

    def resolve(self, *, moved: bool) -> None:
        """Management knows who owns the guest."""
        self._local(Event.OWNER_IS_DESTINATION if moved else Event.OWNER_IS_SOURCE)

    # -- what the peer says -------------------------------------------------------------------------------

    def _event_of(self, found: Incoming) -> tuple[Event, Any] | None:
        message = found.message
        match message:
            case Hello():
                return self._hello(message, found.behind)
            case Answer():
                return self._answered(message)
            case Description():
                return self._machine(message)
            case Verdict():
                return self._judged(message, found.behind)
            case Accept():
                return self._accepted(message, found.before)
            case Ready():
                return self._ready(message, found.before)
            case SwitchGrant() if "asked" in self.facts:
                self.facts -= {"asked"} if message.code else {"asked", "hold"}
                self._tell(Heard(message=message))
                return (Event.DENY if message.code else Event.GRANT), None
            case Taken():
                return self._taken(message)
            case Bye():
                if message.outcome == ByeOutcome.ABORTED:
                    self.facts.add("aborted")
                self._tell(Heard(message=message))
                return Event.BYE, None
        return None

    def _hello(self, message: Hello, behind: bytes) -> tuple[Event, Any] | None:
        if self.peer is not None or message.session != self.session:
            return None
        self.peer = message
        self._hellos = self._hellos[0], behind
        self._tell(Heard(message=message))
        return Event.PEER_HELLO, None

    def _answered(self, answer: Answer) -> tuple[Event, Any] | None:
        if self.peer is None or self._answer is not None:
            return None
        self._answer = answer
        if answer.major not in self.config.majors:
            text = f"major {answer.major} was not offered"
            return Event.ANSWER_BAD, own(AbortCode.SELECTION_MISMATCH, text)
        try:
            agreed = negotiate.settle(self._offers, answer.results, self.config.conflicts, self.config.names)
        except Refused as refusal:
            return Event.ANSWER_BAD, own(refusal.code, refusal.text)
        off = {
            name: negotiate.why_off(answer.results[name]) for name in self.config.offers if name not in agreed
        }
        plan: tuple[PlanEntry, ...] = policy.plan_for(agreed)
        most = self.peer.limits.channels if self.peer.limits else None
        if most is not None and len(plan) > most and "channel.mux" not in agreed:
            text = f"{len(plan)} channels are planned, the destination binds {most}"
            return Event.ANSWER_BAD, own(AbortCode.RESOURCE, text)
        self.agreement = Agreement(agreed=agreed, off=off, plan=plan)
        self.need = answer.need
        self.facts |= policy.facts_of(agreed)
        return Event.ANSWER, None

    def _machine(self, message: Description) -> tuple[Event, Any] | None:
        if self._answer is None or self._described:
            return None
        self._described = True
        data = description.inflated(message)
        if data is None or transcript.sha256(data) != message.sha256:
            return Event.MACHINE_BAD, own(AbortCode.BAD_ENCODING, "the description does not fit its digest")
        return Event.MACHINE, data

    def _judged(self, verdict: Verdict, behind: bytes) -> tuple[Event, Any]:
        self.verdict = verdict
        self._verdict_hash = behind
        decision = policy.decide(verdict, self.config.allowed, strict=self.config.strict)
        self._admitted = decision.admitted
        standing = (*self._veto, *decision.standing)
        if not standing:
            return Event.VERDICT_GO, None
        first = standing[0]
        text = f"{len(standing)} findings stand in the way, the first: {first.rule} {first.text or ''}"
        return Event.VERDICT_NO, own(
            AbortCode.INCOMPATIBLE_MACHINE, text.rstrip(), findings=policy.told(standing)
        )

    def _accepted(self, message: Accept, before: bytes) -> tuple[Event, Any]:
        expected = transcript.point(transcript.ACCEPT, self._commit_hash, before)
        if not transcript.same(message.hash, expected):
            return Event.ACCEPT_BAD, self._mismatch("ACCEPT")
        self._secret = message.secret
        return Event.ACCEPT, self.agreement

    def _ready(self, message: Ready, before: bytes) -> tuple[Event, Any] | None:
        if self.state is not State.BINDING and "rebinding" not in self.facts:
            return None
        due = [entry[:2] for entry in self.agreement.plan if not entry[2]]
        if "rebinding" in self.facts:
            due = [place for place in due if place[0] != ChannelKind.MULTIFD]
        missing = [place for place in due if place not in self._bound and "mux" not in self.facts]
        if missing:
            text = f"READY before channel {missing[0][0]}/{missing[0][1]} was bound"
            return Event.READY_BAD, own(AbortCode.UNEXPECTED_MESSAGE, text)
        if not transcript.same(message.hash, transcript.point(transcript.READY, self._commit_hash, before)):
            return Event.READY_BAD, self._mismatch("READY")
        self._control.stop_counting(carries="mux" in self.facts)
        return Event.READY, self.agreement

    def _mismatch(self, where: str) -> Reason:
        return own(AbortCode.TRANSCRIPT_MISMATCH, transcript.mismatch(where, *self._hellos))

    def _taken(self, message: Taken) -> tuple[Event, Any]:
        if not message.code:
            return Event.TAKEN, None
        finding = message.finding
        text = (finding.text if finding else None) or "the destination could not run the guest"
        found = (finding,) if finding else ()
        return Event.RETURNED, Reason(
            code=AbortCode.LOAD_FAILED.value, text=text, findings=found, of_peer=True
        )

    # -- what ends it -------------------------------------------------------------------------------------

    def one_way(self) -> None:
        """The return direction ended while the other one is open, before any byte."""
        self._local(
            Event.ONE_WAY, own(AbortCode.TRANSPORT_ONE_WAY, "nothing can come back on this connection")
        )

    def _misbegun(self, problem: HandshakeError | None) -> bool:
        if self.state is not State.HELLO:
            return False
        if problem is None:
            text = "the other side closed before it said anything"
            self._hung_up(own(AbortCode.PEER_CLOSED_EARLY, text))
        else:
            self._fire(Event.NOT_PREAMBLE, own(problem.code, str(problem)))
        return True

    # -- what rows do -------------------------------------------------------------------------------------

    def _perform(self, action: Action, detail: Any) -> None:
        match action:
            case Action.NOTE:
                return
            case _ if action.value.startswith("send "):
                self._send(action, detail)
                return
            case Action.ASK_DESCRIPTION:
                detail = self.need
            case Action.RESUME_MIGRATION:
                self.facts.discard("rebinding")
            case Action.CONTINUE_SWITCH:
                self.facts.discard("at-switch")
                self.facts.add("switching")
        self._tell(Do(action=action, detail=detail))

    def _send(self, action: Action, detail: Any) -> None:
        match action:
            case Action.SEND_HELLO:
                self._send_hello()
            case Action.SEND_MACHINE:
                self._say(detail)
            case Action.SEND_COMMIT:
                self._send_commit()
            case Action.SEND_ABORT:
                self._say_abort()
            case Action.SEND_GIVE:
                self._say(Give(run=self._run))
            case Action.SEND_ASK:
                self._say(self._ask)
            case _:
                outcome = ByeOutcome.PROBED if "probe" in self.facts else ByeOutcome.RAN
                self._say(Bye(outcome=(outcome if self.reason is None else ByeOutcome.ABORTED).value))

    def _send_hello(self) -> None:
        config = self.config
        self._queue.append(self._control.preamble())
        hello = Hello(
            majors=(*config.majors, self._grease.major()),
            session=self.session,
            nonce=self.nonce,
            profile=config.profile.value,
            offer=self._offers,
            implementation=config.implementation,
            limits=config.limits,
            digests=config.digests,
            extra=self._grease.key(),
        )
        self._say(hello)
        self._hellos = self._control.sent.now(), b""

    def _send_commit(self) -> None:
        # An ignorable message stands directly before our own next one (HS-TRN-004).
        self._say(self._grease.message())
        agreement = self.agreement
        hashed = transcript.point(transcript.COMMIT, self._control.sent.now(), self._verdict_hash)
        commit = Commit(
            agreed=agreement.agreed, plan=tuple(agreement.plan), admitted=self._admitted or None, hash=hashed
        )
        self._say(commit)
        self._commit_hash = self._control.sent.now()
