"""The destination's end of a session, without I/O; `source` is the other half and has the same manners.

One `Destination` is one attempt: a listener makes a new one for each control connection while it is
listening. `busy` answers a second control connection meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from qmig._cbor import Value
from qmig.errors import LocalProtocolError
from qmig.handshake import description, limits, negotiate, policy, transcript
from qmig.handshake.binding import Credentials, DestinationBinding
from qmig.handshake.codes import AbortCode, ByeOutcome, ChannelKind, Level, Profile, Record
from qmig.handshake.config import DestinationConfig
from qmig.handshake.control import Control, Incoming
from qmig.handshake.destination_table import LIVE, Action, Event, State
from qmig.handshake.events import Agreement, Do, Heard, PlanEntry, Reason, own
from qmig.handshake.frames import HandshakeError
from qmig.handshake.grease import Grease
from qmig.handshake.machine import Machine, Words
from qmig.handshake.messages import (
    Accept,
    Answer,
    Bye,
    Commit,
    Finding,
    Give,
    Hello,
    Message,
    Ready,
    SwitchAsk,
    SwitchGrant,
    Taken,
)
from qmig.handshake.messages import Machine as Description
from qmig.handshake.negotiate import Refused
from qmig.handshake.preamble import Role
from qmig.handshake.resume import DestinationResume

WORDS: Final = Words[State, Event](
    preamble=Event.PREAMBLE,
    abort=Event.ABORT,
    eof=Event.EOF,
    gone=Event.GONE,
    violation=Event.VIOLATION,
    linger_over=Event.LINGER_OVER,
    closing=State.CLOSING,
    end=State.END,
    # work here has to end before the peer is heard again; ABORT and the end of control wait too
    deaf=frozenset({State.JUDGING, State.APPLYING, State.END}),
    late=frozenset({State.TAKING, State.RUNNING, State.HELD_ALONE}),
    turns={
        State.HELLO: (Hello,),
        State.ANSWERED: (Description,),
        State.JUDGED: (Commit, Bye),
        State.LOADING: (Give, SwitchAsk),
        State.HELD: (Give,),
        State.CLOSING: (Bye,),
    },
)
_RECORDS: Final = {
    State.LOADING: Record.LOADING,
    State.HELD: Record.HELD,
    State.TAKING: Record.TAKEN,
    State.RUNNING: Record.RAN,
}


#: what the doing of an action means for later rows
_FACTS: Final = {Action.RECORD_TAKEN: "given", Action.JUDGE_STATE: "judging"}
_BINDS: Final = frozenset({State.BINDING, State.HELD_ALONE, *LIVE})


class Destination(Machine[State, Event, Action]):
    """One attempt. `secret` (32 random bytes) is what data connections prove to belong to it."""

    words: ClassVar[Words[Any, Any]] = WORDS

    def __init__(self, config: DestinationConfig, *, nonce: bytes, secret: bytes, grease: Grease) -> None:
        control = Control(Role.DESTINATION, Role.SOURCE, reserved=grease.reserved())
        super().__init__(config.table, State.LISTENING, control)
        self.config = config
        self.agreement = Agreement(agreed={})
        self.peer: Hello | None = None
        self.judged: bytes = b""
        self.run = True
        self._nonce = nonce
        self._secret = secret
        self._grease = grease
        self._greeted = False  # our preamble is sent
        self._results: negotiate.Results = {}
        self._findings: tuple[Finding, ...] = ()
        self._level = Level.OK.value
        self._hellos = b"", b""  # both directions' hashes behind HELLO
        self._verdict_hash = b""  # ours behind VERDICT
        self._commit_hash = b""  # S's direction behind COMMIT, or RESUME
        self._bound: set[tuple[str, int]] = set()
        self._last: list[Message] = []  # what ends the session, to be said again

    # -- what the user tells ------------------------------------------------------------------------------

    def give_verdict(self, findings: Sequence[Finding]) -> None:
        """What the judge found; what a VERDICT cannot hold is counted in it."""
        verdict = policy.verdict(findings, transcript.sha256(self.judged))
        self._findings, self._level = verdict.findings, verdict.level
        self._local(Event.JUDGED, verdict)

    def applied(self) -> None:
        """The agreed set is set and was read back."""
        self._local(Event.APPLIED)
        if "mux" in self.facts:
            self._all_bound()

    def settings_refused(self, text: str) -> None:
        self._local(Event.SETTINGS_REFUSED, own(AbortCode.SETTINGS_FAILED, text))

    def bind(self, binding: DestinationBinding, exporter: bytes = b"") -> bytes:
        """Judges a data connection's request; what is to be sent on it. `binding.reason` tells of a refusal,
        which concerns that connection only."""
        request = binding.request
        assert request is not None
        place = (request.kind, request.index)
        planned = {entry[:2] for entry in self.agreement.plan}
        if self.state not in _BINDS:
            return binding.refuse(own(AbortCode.BAD_BINDING, "no session takes channels now"))
        if place not in planned or place in self._bound:
            what = "is bound already" if place in self._bound else "is not planned"
            reason = own(AbortCode.CHANNEL_UNEXPECTED, f"channel {request.kind}/{request.index} {what}")
            return binding.refuse(reason)
        answer = binding.accept(Credentials(self._session, self._secret, exporter))
        if answer is None:
            assert binding.reason is not None
            return binding.refuse(binding.reason)
        self._bound.add(place)
        if place in self._due():
            if self._due() <= self._bound:
                self._all_bound()
        else:
            self._fire(Event.LATE_BOUND, place)
        return answer

    def _due(self) -> set[tuple[str, int]]:
        """What has to be bound before READY."""
        due = {entry[:2] for entry in self.agreement.plan if not entry[2]}
        return {place for place in due if place[0] == ChannelKind.MAIN} if "rebinding" in self.facts else due

    def _all_bound(self) -> None:
        self.facts.add("bound")
        self._fire(Event.ALL_BOUND, self.agreement)

    def listens(self) -> None:
        """Our QEMU listens: `migrate-incoming` was accepted, or `migrate-recover` in a resumed session."""
        self._local(Event.LISTENS)

    def listen_refused(self, text: str) -> None:
        self._local(Event.LISTEN_REFUSED, own(AbortCode.DESTINATION_SPENT, text))

    def bound_lost(self, text: str) -> None:
        """A bound channel ended before its time."""
        self._local(Event.BOUND_LOST, own(AbortCode.CHANNEL_MISSING, text))

    def loaded(self) -> None:
        """The guest is loaded, or its pages are owed, and it is paused (`handover.v1`)."""
        self._local(Event.LOADED)
        self.facts.add("loaded")

    def started(self) -> None:
        """The guest is loaded and runs, or is paused as it was (without `handover.v1`)."""
        self._local(Event.STARTED)

    def load_failed(self, text: str, *, cause: Sequence[str] = ()) -> None:
        self._local(Event.LOAD_FAILED, own(AbortCode.LOAD_FAILED, text, cause=tuple(cause)))

    def qemu_died(self, text: str, *, cause: Sequence[str] = ()) -> None:
        """Our QEMU ended; `text` has its exit status, `cause` its last words."""
        code = AbortCode.LOAD_FAILED if "bound" in self.facts else AbortCode.INTERNAL
        self._local(Event.QEMU_DIED, own(code, text, cause=tuple(cause)))

    def continued(self) -> None:
        """The guest runs, or stays paused because it was."""
        self._local(Event.CONT_OK)

    def cont_failed(self, text: str) -> None:
        self._local(Event.CONT_FAILED, own(AbortCode.LOAD_FAILED, text))

    def complete(self, *, paused: bool = False) -> None:
        """Nothing more is needed of the source."""
        self._local(Event.COMPLETE, ByeOutcome.PAUSED if paused else ByeOutcome.RAN)

    def grant(self, findings: Sequence[Finding] = ()) -> None:
        """The answer to SWITCH-ASK: "no" if a finding is `incompatible`. Passed over if the session was
        resumed meanwhile: S asks again then (HS-RCK-001)."""
        if "judging" not in self.facts:
            return
        self.facts.discard("judging")
        worst = policy.severity(policy.worst([finding.level for finding in findings]))
        no = worst >= policy.severity(Level.INCOMPATIBLE)
        self._say(SwitchGrant(code=int(no), findings=tuple(findings[: limits.FINDINGS]) or None))

    def cancel(self) -> None:
        self._local(Event.CANCEL, own(AbortCode.CANCELLED, "cancelled at the destination"))

    def discard(self) -> None:
        """Management gives the guest up here."""
        self._local(Event.DISCARD, own(AbortCode.CANCELLED, "discarded at the destination"))

    @property
    def record(self) -> Record | None:
        """What D knows of the guest's owner; None where no guest was to come."""
        if self.state in {State.CLOSING, State.END}:
            known = {"ran": Record.RAN, "spent": Record.RETURNED}.get(self._outcome)
            return known if "ready" in self.facts else None
        if self.state is State.HELD_ALONE:
            return Record.HELD if "loaded" in self.facts else Record.LOADING
        if self.state is State.LOADING and "given" in self.facts:
            return Record.TAKEN
        return _RECORDS.get(self.state)

    def resumable(self, session: bytes) -> tuple[Credentials, Mapping[str, Value]] | None:
        """What a resumption of `session` has to prove; None if there is nothing to resume."""
        if session != self._session or "resume" not in self.facts or self.record is None:
            return None
        return Credentials(self._session, self._secret), self.agreement.agreed

    def resumed(self, resume: DestinationResume) -> None:
        """A resumption is `done`: the session goes on over its connection (HS-RES-006)."""
        record = self.record
        if record is None:
            raise LocalProtocolError("there is nothing to resume", requirement="HS-RES-005")
        self._adopt(resume.control)
        self.facts.discard("judging")
        self._secret = resume.next_secret
        self._commit_hash = resume.resume_hash
        self._queue.extend(resume.answer(record))
        if not resume.data:
            self._control.stop_counting()
        live = self.state not in {State.CLOSING, State.END}
        if resume.data and live:
            self._bound = {place for place in self._bound if place[0] == ChannelKind.MULTIFD}
            self.facts.add("rebinding")
        self._fire(Event.RESUMED)
        if resume.data and live and "mux" in self.facts:
            self._all_bound()

    # -- what the peer says -------------------------------------------------------------------------------

    @property
    def _session(self) -> bytes:
        return self.peer.session if self.peer else b""

    def _event_of(self, found: Incoming) -> tuple[Event, Any] | None:
        message = found.message
        match message:
            case Hello():
                return self._hello(message, found.behind)
            case Description():
                return self._described(message)
            case Commit():
                return self._committed(message, found)
            case Bye():
                self._tell(Heard(message=message))
                return Event.BYE, None
            case Give():
                self.run = message.run
                return Event.GIVE, message.run
            case SwitchAsk() if "recheck" in self.facts:
                return Event.ASK, message.state
        return None

    def _hello(self, hello: Hello, behind: bytes) -> tuple[Event, Any]:
        self.peer = hello
        self._hellos = behind, b""
        self._tell(Heard(message=hello))
        config = self.config
        common = [major for major in hello.majors if major in config.majors]
        if not common:
            return Event.HELLO_BAD, own(
                AbortCode.VERSION_UNSUPPORTED, "no common major", majors=tuple(config.majors)
            )
        if config.refuse is not None:
            return Event.HELLO_BAD, config.refuse
        if hello.profile == Profile.RESUME:
            return Event.HELLO_BAD, own(AbortCode.SESSION_UNKNOWN, "no session of that name is here")
        if hello.profile not in {Profile.MIGRATE, Profile.PROBE}:
            return Event.HELLO_BAD, own(AbortCode.UNEXPECTED_MESSAGE, f"profile {hello.profile!a}")
        if hello.profile == Profile.PROBE:
            self.facts.add("probe")
        offers = hello.offer or {}
        abilities = dict(config.abilities)
        if not config.holds and "handover.v1" in abilities:
            abilities["handover.v1"] = negotiate.Unable(AbortCode.NO_HOLD.value)
        self._results = negotiate.answer(offers, abilities, config.conflicts, config.names)
        missing = {
            name: reason
            for name, reason in config.required.items()
            if self._results.get(name, (negotiate.NOT_UNDERSTOOD,))[0] != negotiate.AGREED
        }
        if missing:
            refusal = Refused(AbortCode.MISSING_REQUIRED, missing)
            return Event.HELLO_BAD, own(refusal.code, refusal.text)
        theirs = hello.digests or {}
        need = [name for name, digest in config.digests.items() if theirs.get(name) != digest]
        return Event.HELLO, (common[0], tuple(need) if theirs else None)

    def _described(self, message: Description) -> tuple[Event, Any]:
        data = description.inflated(message)
        if data is None or transcript.sha256(data) != message.sha256:
            return Event.MACHINE_BAD, own(AbortCode.BAD_ENCODING, "the description does not fit its digest")
        self.judged = data
        return Event.MACHINE, data

    def _committed(self, commit: Commit, found: Incoming) -> tuple[Event, Any]:
        expected = transcript.point(transcript.COMMIT, found.before, self._verdict_hash)
        if not transcript.same(commit.hash, expected):
            text = transcript.mismatch("COMMIT", *self._hellos)
            return Event.COMMIT_BAD, own(AbortCode.TRANSCRIPT_MISMATCH, text)
        try:
            negotiate.check_agreed(self._results, commit.agreed, self.config.names)
        except Refused as refusal:
            return Event.COMMIT_BAD, own(refusal.code, refusal.text)
        plan: tuple[PlanEntry, ...] = tuple((kind, index, when) for kind, index, when, *_ in commit.plan)
        if wrong := policy.unexpected(plan, commit.agreed):
            return Event.COMMIT_BAD, own(AbortCode.CHANNEL_UNEXPECTED, wrong)
        if not policy.suffices(
            self._findings, commit.admitted or (), level=self._level, strict=self.config.strict
        ):
            return Event.COMMIT_BAD, own(
                AbortCode.INCOMPATIBLE_MACHINE, "findings stand that were not admitted"
            )
        self._commit_hash = found.behind
        self.agreement = Agreement(agreed=commit.agreed, plan=plan)
        self.facts |= policy.facts_of(commit.agreed)
        return Event.COMMIT, self.agreement

    def _is_late(self) -> bool:
        return super()._is_late() or (self.state is State.LOADING and "given" in self.facts)

    def _misbegun(self, problem: HandshakeError | None) -> bool:
        if problem is None:
            self._fire(Event.STRAY, own(AbortCode.NOT_QMH, "ended before it said anything"))
        else:
            role = problem.requirement == "HS-PRE-008"
            more = {"majors": tuple(self.config.majors)} if role else {}
            self._fire(Event.ROLE_BAD if role else Event.STRAY, own(problem.code, str(problem), **more))
        return True

    # -- what rows do -------------------------------------------------------------------------------------

    def _perform(self, action: Action, detail: Any) -> None:
        match action:
            case Action.NOTE:
                pass
            case Action.REPEAT:
                for message in self._last:
                    self._say(message)
            case _ if action.value.startswith("send "):
                self._send(action, detail)
            case _:
                if fact := _FACTS.get(action):
                    self.facts.add(fact)
                self._tell(Do(action=action, detail=detail))

    def _send(self, action: Action, detail: Any) -> None:
        match action:
            case Action.SEND_ANSWER:
                self._send_answer(*detail)
            case Action.SEND_VERDICT:
                self._say(detail)
                self._verdict_hash = self._control.sent.now()
            case Action.SEND_ACCEPT:
                hashed = transcript.point(transcript.ACCEPT, self._commit_hash, self._control.sent.now())
                self._say(Accept(hash=hashed, secret=self._secret))
            case Action.SEND_READY:
                hashed = transcript.point(transcript.READY, self._commit_hash, self._control.sent.now())
                self._say(Ready(hash=hashed))
                self._control.stop_counting(carries="mux" in self.facts)
                self.facts.add("ready")
                self.facts.discard("rebinding")
            case Action.SEND_TAKEN:
                self._say(Taken(code=0))
            case Action.SEND_RETURNED:
                self._say_last(Taken(code=1, finding=self._why().finding()))
            case Action.SEND_BYE:
                self._say_last(Bye(outcome=self._outcome_word(detail)))
            case _:
                self._greet()
                self._say_last(self._why().message())

    def _why(self) -> Reason:
        return self.reason or own(AbortCode.INTERNAL, "no reason was given")

    def _say_last(self, message: Message) -> None:
        """Ends the session, also for whoever resumes it later (HS-RES-009)."""
        self._last.append(message)
        self._say(message)

    def _outcome_word(self, detail: Any) -> str:
        if isinstance(detail, ByeOutcome):
            return detail.value
        probed = "probe" in self.facts and self.reason is None
        return (ByeOutcome.PROBED if probed else ByeOutcome.ABORTED).value

    def _greet(self) -> None:
        if not self._greeted:
            self._greeted = True
            self._queue.append(self._control.preamble())

    def _send_answer(self, major: int, need: tuple[str, ...] | None) -> None:
        config = self.config
        self._greet()
        hello = Hello(
            majors=tuple(config.majors),
            session=self._session,
            nonce=self._nonce,
            implementation=config.implementation,
            limits=config.limits,
        )
        self._say(hello)
        self._hellos = self._hellos[0], self._control.sent.now()
        self._say(self._grease.message())
        declared = {**config.declared, self._grease.name(): True}
        answer = Answer(
            major=major, results=self._results, declared=declared, need=need, extra=self._grease.key()
        )
        self._say(answer)
        peer = self._results.get("description.peer", (negotiate.NOT_UNDERSTOOD,))
        if peer[0] == negotiate.AGREED:
            self._say(description.message(config.description))
