"""What both sides have said, hashed; and the proofs made from a secret.

Source: `spec/v2`, chapters "Transcript" (HS-TRN) and "Channels" (HS-CHN). A hash without a key finds faulty
relays and implementations that disagree, not attackers: only TLS, ssh or a unix socket keeps those out.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from qmig import _cbor

COMMIT: Final = b"qmh2 transcript commit"
ACCEPT: Final = b"qmh2 transcript accept"
READY: Final = b"qmh2 transcript ready"
CHANNEL: Final = b"qmh2 channel"
CHANNEL_OK: Final = b"qmh2 channel-ok"
RESUME_SOURCE: Final = b"qmh2 resume s"
RESUME_DESTINATION: Final = b"qmh2 resume d"
NEXT: Final = b"qmh2 next"


class Running:
    """A hash over one direction, from the preamble's first byte on."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, data: bytes | memoryview) -> None:
        self._hash.update(data)

    def now(self) -> bytes:
        """The hash of what was added so far."""
        return self._hash.digest()


def point(label: bytes, source: bytes, destination: bytes) -> bytes:
    """The hash that a message carries for both directions' hashes (HS-TRN-003)."""
    return hashlib.sha256(label + source + destination).digest()


def mismatch(where: str, source: bytes, destination: bytes) -> str:
    """What is told of a hash that differs: also whether both HELLOs came as they were sent (HS-TRN-005)."""
    return f"{where}: both sides heard other bytes (HELLO S {source[:8].hex()}, D {destination[:8].hex()})"


def token(
    secret: bytes, session: bytes, kind: str, index: int, *, label: bytes = CHANNEL, exporter: bytes = b""
) -> bytes:
    """The proof that a data connection belongs to a session; `exporter` is that connection's TLS exporter
    value where `channel.tls-exporter` is agreed."""
    return _mac(secret, label + session + _cbor.encode([kind, index]) + exporter)


def proof(secret: bytes, label: bytes, source: bytes, destination: bytes) -> bytes:
    """The proof that a side knows an old session's secret."""
    return _mac(secret, label + source + destination)


def next_secret(secret: bytes, source_nonce: bytes, destination_nonce: bytes) -> bytes:
    """The secret of a resumed session."""
    return _mac(secret, NEXT + source_nonce + destination_nonce)


def same(left: bytes, right: bytes) -> bool:
    """Whether two proofs are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(left, right)


def sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
