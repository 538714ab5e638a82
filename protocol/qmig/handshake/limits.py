"""How much a peer may say: the numbers of `spec/registries/v2-limits.toml`; a test compares both ways.

Sizes are bytes unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

KiB: Final = 1 << 10
MiB: Final = 1 << 20

FRAME_FIRST: Final = 64 * KiB
FRAME_CHANNEL: Final = 4 * KiB
FRAME: Final = MiB
FRAME_DATA: Final = 64 * KiB
MESSAGE: Final = MiB
MESSAGE_MACHINE: Final = 16 * MiB + 64 * KiB
MESSAGE_VERDICT: Final = 4 * MiB
MESSAGE_END: Final = 16 * KiB
DESCRIPTION: Final = 16 * MiB
BYTES_BEFORE_READY: Final = 32 * MiB
FRAMES_BEFORE_READY: Final = 4_096
NAME: Final = 255
PATH: Final = 1_023
TEXT: Final = 2_048
ANY_TEXT: Final = 4_096
DEPTH: Final = 16
OFFERS: Final = 1_024
MAP: Final = 4_096
ARRAY: Final = 65_536
MAP_DESCRIPTION: Final = 65_536
ITEMS: Final = 131_072
FINDINGS: Final = 1_000
MAJORS: Final = 64
CLASSES: Final = 64
CAUSES: Final = 16
CHANNELS: Final = 272
UNBOUND_TOTAL: Final = 64
UNBOUND_ADDRESS: Final = 8
CHANNELS_OPENING: Final = 16
WINDOW_DEFAULT: Final = MiB
WINDOW_MOST: Final = 16 * MiB
CREDIT_MOST: Final = (1 << 31) - 1
ALIGNMENT: Final = MiB
#: seconds
CLOSE_LINGER: Final = 5
INFO_INTERVAL: Final = 15
