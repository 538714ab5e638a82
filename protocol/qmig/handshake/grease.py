"""What is sent only so that ignoring it stays possible (HS-EVO-004): always on, chosen by random bytes of the
user.

Places: a name in the offer (S) or under `declared` (D), an unknown key, a message 160 to 175, the reserved
bytes of the preamble, a major that nobody has. None on data connections and in manifests.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmig._cbor import Value
from qmig.handshake import names
from qmig.handshake.messages import GREASE, Ignorable, Offer

#: random bytes that one session needs
SIZE = 16


@dataclass(frozen=True, slots=True, repr=False)
class Grease:
    """`random` are `SIZE` bytes."""

    random: bytes

    def reserved(self) -> bytes:
        """The preamble's reserved bytes."""
        return self.random[:6]

    def major(self) -> int:
        """A wire major from 1000 on."""
        return 1_000 + self.random[6]

    def name(self) -> str:
        return names.GREASE + self.random[7:11].hex()

    def offer(self) -> dict[str, Offer]:
        return {self.name(): Offer(value=True)}

    def key(self) -> dict[int, Value]:
        """An unknown key with a value; above all that revisions may give, and not of the private map."""
        return {60_000 + self.random[11]: self.random[12:14]}

    def message(self) -> Ignorable:
        number = GREASE[self.random[14] % len(GREASE)]
        return Ignorable(type=number, body={1: self.random[15:16]})
