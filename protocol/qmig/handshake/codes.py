"""Words on the wire: why a side aborts, who has to act, how a session ends.

Repeats `spec/registries/v2-abort-codes.toml` and its neighbours; a test compares both ways.
An unknown word of a peer is shown and treated as the registry says (HS-ERR-004).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class AbortCode(enum.StrEnum):
    """Why (ABORT key 1)."""

    PEER_CLOSED_EARLY = "peer-closed-early"
    NOT_QMH = "not-qmh"
    LEGACY_PEER = "legacy-peer"
    PEER_SPEAKS_TLS = "peer-speaks-tls"
    TLS_REQUIRED = "tls-required"
    TLS_FAILED = "tls-failed"
    TRANSPORT_ONE_WAY = "transport-one-way"
    TRANSPORT_NOT_TRANSPARENT = "transport-not-transparent"
    VERSION_UNSUPPORTED = "version-unsupported"
    BAD_ENCODING = "bad-encoding"
    LIMIT_EXCEEDED = "limit-exceeded"
    UNKNOWN_MESSAGE = "unknown-message"
    UNEXPECTED_MESSAGE = "unexpected-message"
    SELECTION_MISMATCH = "selection-mismatch"
    MISSING_REQUIRED = "missing-required"
    BAD_AGREED_SET = "bad-agreed-set"
    INCOMPATIBLE_MACHINE = "incompatible-machine"
    BLOCKED = "blocked"
    BAD_BINDING = "bad-binding"
    CHANNEL_MISSING = "channel-missing"
    CHANNEL_UNEXPECTED = "channel-unexpected"
    TRANSCRIPT_MISMATCH = "transcript-mismatch"
    DESTINATION_SPENT = "destination-spent"
    LOAD_FAILED = "load-failed"
    RESOURCE = "resource"
    CANCELLED = "cancelled"
    SESSION_UNKNOWN = "session-unknown"
    RESUME_REFUSED = "resume-refused"
    BUSY = "busy"
    MACHINE_CHANGED = "machine-changed"
    TOO_LATE = "too-late"
    NO_HOLD = "no-hold"
    NOT_DEFERRED = "not-deferred"
    SETTINGS_FAILED = "settings-failed"
    SOURCE_FAILED = "source-failed"
    CONTROL_LOST = "control-lost"
    INTERNAL = "internal"


class Who(enum.StrEnum):
    """Who can mend it (ABORT key 4, a finding's key 9)."""

    SOURCE_OPERATOR = "source-operator"
    DESTINATION_OPERATOR = "destination-operator"
    MANAGER = "manager"
    DEVELOPER = "developer"


class Retry(enum.StrEnum):
    """Whether another attempt can help (ABORT key 5)."""

    NEVER = "never"
    SAME_HOST = "same-host"
    OTHER_HOST = "other-host"
    LATER = "later"


#: who acts and whether trying again helps, if a sender knows nothing better (HS-ERR-004)
USUAL: Final[Mapping[str, tuple[Who, Retry]]] = {
    AbortCode.PEER_CLOSED_EARLY: (Who.MANAGER, Retry.LATER),
    AbortCode.NOT_QMH: (Who.MANAGER, Retry.NEVER),
    AbortCode.LEGACY_PEER: (Who.MANAGER, Retry.NEVER),
    AbortCode.PEER_SPEAKS_TLS: (Who.MANAGER, Retry.NEVER),
    AbortCode.TLS_REQUIRED: (Who.SOURCE_OPERATOR, Retry.NEVER),
    AbortCode.TLS_FAILED: (Who.MANAGER, Retry.NEVER),
    AbortCode.TRANSPORT_ONE_WAY: (Who.SOURCE_OPERATOR, Retry.NEVER),
    AbortCode.TRANSPORT_NOT_TRANSPARENT: (Who.SOURCE_OPERATOR, Retry.NEVER),
    AbortCode.VERSION_UNSUPPORTED: (Who.MANAGER, Retry.OTHER_HOST),
    AbortCode.BAD_ENCODING: (Who.DEVELOPER, Retry.NEVER),
    AbortCode.LIMIT_EXCEEDED: (Who.DEVELOPER, Retry.NEVER),
    AbortCode.UNKNOWN_MESSAGE: (Who.DEVELOPER, Retry.NEVER),
    AbortCode.UNEXPECTED_MESSAGE: (Who.DEVELOPER, Retry.NEVER),
    AbortCode.SELECTION_MISMATCH: (Who.DEVELOPER, Retry.NEVER),
    AbortCode.MISSING_REQUIRED: (Who.MANAGER, Retry.OTHER_HOST),
    AbortCode.BAD_AGREED_SET: (Who.DEVELOPER, Retry.NEVER),
    AbortCode.INCOMPATIBLE_MACHINE: (Who.DESTINATION_OPERATOR, Retry.OTHER_HOST),
    AbortCode.BLOCKED: (Who.SOURCE_OPERATOR, Retry.LATER),
    AbortCode.BAD_BINDING: (Who.DEVELOPER, Retry.SAME_HOST),
    AbortCode.CHANNEL_MISSING: (Who.MANAGER, Retry.SAME_HOST),
    AbortCode.CHANNEL_UNEXPECTED: (Who.DEVELOPER, Retry.NEVER),
    AbortCode.TRANSCRIPT_MISMATCH: (Who.MANAGER, Retry.SAME_HOST),
    AbortCode.DESTINATION_SPENT: (Who.DESTINATION_OPERATOR, Retry.LATER),
    AbortCode.LOAD_FAILED: (Who.DESTINATION_OPERATOR, Retry.OTHER_HOST),
    AbortCode.RESOURCE: (Who.MANAGER, Retry.LATER),
    AbortCode.CANCELLED: (Who.MANAGER, Retry.LATER),
    AbortCode.SESSION_UNKNOWN: (Who.MANAGER, Retry.NEVER),
    AbortCode.RESUME_REFUSED: (Who.MANAGER, Retry.NEVER),
    AbortCode.BUSY: (Who.MANAGER, Retry.LATER),
    AbortCode.MACHINE_CHANGED: (Who.MANAGER, Retry.SAME_HOST),
    AbortCode.TOO_LATE: (Who.MANAGER, Retry.NEVER),
    AbortCode.NO_HOLD: (Who.DESTINATION_OPERATOR, Retry.LATER),
    AbortCode.NOT_DEFERRED: (Who.DESTINATION_OPERATOR, Retry.LATER),
    AbortCode.SETTINGS_FAILED: (Who.MANAGER, Retry.OTHER_HOST),
    AbortCode.SOURCE_FAILED: (Who.SOURCE_OPERATOR, Retry.LATER),
    AbortCode.CONTROL_LOST: (Who.MANAGER, Retry.LATER),
    AbortCode.INTERNAL: (Who.DEVELOPER, Retry.LATER),
}


class Level(enum.StrEnum):
    """How bad a finding, or all of them together, are; ascending."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARN = "warn"
    INCOMPATIBLE = "incompatible"


class ByeOutcome(enum.StrEnum):
    """How a session ends in order (BYE key 1)."""

    RAN = "ran"
    PAUSED = "paused"
    PROBED = "probed"
    ABORTED = "aborted"
    SAVED = "saved"


class Record(enum.StrEnum):
    """What one side has written down of the guest's owner (HS-HND-013); RESUME-ANSWER key 2."""

    LOADING = "loading"
    HELD = "held"
    GIVEN = "given"
    TAKEN = "taken"
    RAN = "ran"
    RETURNED = "returned"
    BACK = "back"


class ChannelKind(enum.StrEnum):
    """What a data channel carries (HS-CHN-002)."""

    MAIN = "main"
    MULTIFD = "multifd"
    PREEMPT = "preempt"


class Class(enum.StrEnum):
    """Parts of a machine description (HS-DSC-001)."""

    IDENTITY = "identity"
    GUEST = "guest"
    STREAM = "stream"
    STATE = "state"
    BACKEND = "backend"
    HOST = "host"


class Profile(enum.StrEnum):
    """What a session is for (HELLO key 4)."""

    MIGRATE = "migrate"
    PROBE = "probe"
    FILE = "file"
    RESUME = "resume"
