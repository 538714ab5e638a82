"""Plays a `Play` on a QEMU build, and sees what becomes of it without a clock (`qmig_conformance.rest`).

Each play has a QEMU of its own, which is gone when it is over, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from qmig.builds import Qemu
from qmig.errors import EnvironmentProblem
from qmig.peers.play import receive_from, start_side
from qmig.testing.scenario import Scenario, Unsupported
from qmig_conformance import artefacts, interrupt
from qmig_conformance.play import (
    Good,
    Play,
    Seen,
)
from qmig_conformance.playing import Playing, listening
from qmig_conformance.source import SourcePlaying

#: Ends a play that never ends, in seconds. It is then an error of ours, never a verdict.
WATCHDOG: Final = 60


class QemuDestination:
    """A build as destination."""

    def __init__(self, qemu: Qemu) -> None:
        self.qemu = qemu
        self.version = qemu.version
        self._good: dict[str, Good] = {}
        self._last: tuple[Play, Seen, Sequence[Mapping[str, Any]]] | None = None

    def good(self, settings: Scenario) -> Good:
        """What this build itself sends as a source of these settings; recorded once."""
        key = repr(settings)
        if key not in self._good:
            self._good[key] = interrupt.run(self._record, settings)
        return self._good[key]

    def play(self, play: Play) -> Seen:
        """Plays it on a QEMU of its own."""
        self._last = None
        seen, log = interrupt.run(self._play, play)
        self._last = (play, seen, log)
        return seen

    def keep(self, folder: Path) -> None:
        """Writes the artefacts of the last play."""
        assert self._last is not None
        play, seen, log = self._last
        argv = [str(self.qemu.binary), *play.settings.arguments(self.version, Path("{folder}"))]
        artefacts.save(folder, play, seen, argv=[*argv, "-incoming", "defer"], qmp=log)

    async def _record(self, settings: Scenario) -> Good:
        if settings.target != self.qemu.target:
            raise Unsupported(f"a machine of {settings.target}; this build is for {self.qemu.target}")
        channels: dict[str, bytearray] = {}

        def tap(channel: str, chunk: memoryview) -> None:
            channels.setdefault(channel, bytearray()).extend(chunk)

        with trio.move_on_after(WATCHDOG) as watchdog:
            async with start_side(self.qemu, settings) as side, receive_from(side, tap=tap):
                pass
        if watchdog.cancelled_caught:
            raise EnvironmentProblem(f"{settings.name}: a good stream was not recorded within {WATCHDOG} s")
        return Good(settings, {name: bytes(data) for name, data in channels.items()})

    async def _play(self, play: Play) -> tuple[Seen, Sequence[Mapping[str, Any]]]:
        playing: Playing | None = None
        with trio.move_on_after(WATCHDOG) as watchdog:
            async with (
                start_side(self.qemu, play.settings, incoming=not play.of_source, held=False) as side,
                listening(side, SourcePlaying if play.of_source else Playing) as playing,
            ):
                seen = await playing.play(play)
        if watchdog.cancelled_caught:
            doing = playing.doing if playing else "start"
            raise EnvironmentProblem(
                f"not settled within {WATCHDOG} s, during {doing}; the watchdog ended it"
            )
        assert playing is not None
        return seen, playing.log
