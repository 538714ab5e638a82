"""A QEMU as the source of a play: it migrates to an address of ours, and is answered by the steps."""

from __future__ import annotations

import trio

from qmig.errors import EnvironmentProblem
from qmig_conformance.play import Accept, Outcome, Seen, Step
from qmig_conformance.playing import Playing


class SourcePlaying(Playing):
    """A play of a source. Where its migration fails, its guest has to go on."""

    _listener: trio.SocketListener

    async def _begin(self) -> None:
        status = await self._command("query-status")
        if status["status"] != "running":
            raise EnvironmentProblem(f"before the play its run state is {status['status']}")
        self._path = self.vm.folder / "out"
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(str(self._path))
        sock.listen(1)
        self._listener = trio.SocketListener(sock)

    def _address(self) -> str:
        return f"unix:{self._path}"

    async def _step(self, step: Step) -> None:
        if not isinstance(step, Accept):
            await super()._step(step)
            return
        accepted: list[trio.SocketStream] = []

        async def accept() -> None:
            accepted.append(await self._listener.accept())

        await self._race(accept, self._rests, self._ended)
        if not accepted:
            raise EnvironmentProblem(f"it made no connection; {self._watch.words()}")
        self._add(step.name, accepted[0])

    def _over(self, run_state: str) -> bool:
        return run_state == "postmigrate"

    async def _outcome(self) -> Seen:
        """A migration that failed has left the guest running: it is seen to go on."""
        seen = await super()._outcome()
        if seen.outcome is Outcome.FAIL and seen.run_state == "running" and self.side.program is not None:
            await self.vm.wait_guest(self.side.program, rounds=2)
            return self._seen(seen.outcome, seen.run_state, f"{seen.evidence}; its guest goes on")
        return seen

    def close(self) -> None:
        super().close()
        self._listener.socket.close()
