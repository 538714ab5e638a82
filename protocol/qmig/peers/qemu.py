"""Start a real QEMU, steer its migration, read its guest's memory.

    from qmig.builds import find
    from qmig.peers.qemu import start_qemu
    from qmig.testing.guest import firmware

    qemu = find("x86_64", "10.0")                                # any path to a program will do as well
    program = firmware(fill=(1 << 20, 8 << 20), dirty=(8 << 20, 9 << 20))
    async with start_qemu(qemu.binary, ["-M", "q35", "-accel", "tcg", "-m", "16M", "-nodefaults"],
                          program=program) as vm:
        await vm.wait_guest(program)                             # the guest has filled its memory
        await vm.set_capabilities({"multifd": True})
        await vm.set_parameters({"multifd-channels": 4})
        await vm.migrate("unix:/run/peer.sock")
        outcome = await vm.wait_migration()                      # by events and query-migrate
        assert outcome.status == "completed", outcome.error
        covered = await vm.save_ram_block("pc.ram", Path("/tmp/pc.ram"))

Life cycle: the block is entered when QEMU has sent its QMP greeting (over an inherited socket pair: nothing
to wait for on disk, no timing), and when it is left, however that happens, QEMU and all processes it started
are killed and reaped and its folder is removed. A QEMU that ends by itself turns every pending and later
call into `QemuDied` with its exit status and last words. Nothing here ends by a clock: a QEMU that hangs is
waited for until the caller cancels. Even if this process is killed by SIGKILL, a shell that waits for the
end of a pipe kills QEMU and removes the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from qmig._nursery import background
from qmig.errors import EnvironmentProblem
from qmig.peers import _memory
from qmig.peers._memory import MemoryRange, RamBlock
from qmig.qmp import EventStream, Qmp, QmpClosed, QmpConnectError, open_qmp
from qmig.testing.guest import Guest

#: Migration states that QEMU does not leave by itself.
RESTING = frozenset({"completed", "failed", "cancelled", "postcopy-paused", "pre-switchover"})
#: Bytes of QEMU's own output that are kept, the newest ones.
KEPT_OUTPUT = 256 << 10
#: How often a guest's memory is looked at while waiting for a word in it; not a limit on anything.
LOOK_EVERY = 0.01


class QemuDied(EnvironmentProblem):
    """QEMU ended while it was needed. `returncode` is negative for a signal; `output` its last words."""

    def __init__(self, name: str, returncode: int, output: str, doing: str = "") -> None:
        how = (
            f"was killed by {signal.Signals(-returncode).name}"
            if returncode < 0
            else f"ended with exit status {returncode}"
        )
        # A reason may be followed by a hint or by its consequence.
        words = "; ".join(line.strip() for line in output.strip().splitlines()[-3:])
        said = f": {words}" if words else ""
        super().__init__(f"{name} {how}{f' during {doing}' if doing else ''}{said}")
        self.returncode, self.output = returncode, output


@dataclass(frozen=True, slots=True)
class Migration:
    """What `query-migrate` says."""

    status: str
    info: Mapping[str, Any] = field(repr=False)

    @property
    def error(self) -> str:
        """QEMU's reason for a failure; empty where it tells none."""
        return str(self.info.get("error-desc", ""))


class QemuProcess:
    """A running QEMU; made by `start_qemu`."""

    def __init__(self, name: str, process: trio.Process, folder: Path) -> None:
        #: for messages
        self.name = name
        #: private folder, removed at the end; short enough for unix sockets
        self.folder = folder
        self._process, self._output = process, _Output()
        self._qmp: Qmp | None = None

    @property
    def qmp(self) -> Qmp:
        """The monitor. Calls made through `QemuProcess` tell a QEMU's death from a lost connection."""
        assert self._qmp is not None
        return self._qmp

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    @property
    def version(self) -> tuple[int, int, int]:
        return self.qmp.version

    @property
    def output(self) -> str:
        """What QEMU wrote to stdout and stderr so far, the last `KEPT_OUTPUT` bytes of it."""
        return self._output.text()

    # -- monitor ------------------------------------------------------------------------------------------

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, oob: bool = False
    ) -> Any:
        """Run a QMP command. Raises QmpCommandError for an error answer, QemuDied if QEMU ends."""
        async with self._death_notice(command):
            return await self.qmp.execute(command, arguments, oob=oob)

    async def hmp(self, line: str) -> str:
        """The answer of the human monitor, whose wording is no interface; `ram_blocks` and others read it."""
        return str(await self.execute("human-monitor-command", {"command-line": line}))

    def events(self, *names: str) -> AbstractContextManager[EventStream]:
        """Subscribe to events; see `Qmp.events`."""
        return self.qmp.events(*names)

    async def wait_exit(self) -> int:
        """Wait until QEMU has ended by itself; returns its exit status, negative for a signal."""
        return await self._process.wait()

    async def quit(self) -> int:
        """Ask QEMU to end and wait for it."""
        with suppress(QmpClosed):
            await self.qmp.execute("quit")
        return await self.wait_exit()

    def kill(self) -> None:
        """Kill QEMU without any notice, as a crash would."""
        self._process.kill()

    async def _connect(self, stack: AsyncExitStack, monitor: socket.socket) -> Qmp:
        try:
            return await stack.enter_async_context(open_qmp(monitor))
        except QmpConnectError as problem:
            if not problem.by_peer:
                raise
            raise await self._last_words("start") from problem

    @asynccontextmanager
    async def _death_notice(self, doing: str) -> AsyncIterator[None]:
        try:
            yield
        except QmpClosed as end:
            if not end.by_peer:
                raise
            raise await self._last_words(doing) from end

    async def _last_words(self, doing: str) -> QemuDied:
        """The monitor ended, which QEMU does only by ending itself."""
        returncode = await self._process.wait()
        assert self._process.stdout is not None
        self._output.drain(self._process.stdout.fileno())  # type: ignore[attr-defined]
        return QemuDied(self.name, returncode, self.output, doing)

    # -- migration ----------------------------------------------------------------------------------------

    async def supported_capabilities(self) -> frozenset[str]:
        """Names of the migration capabilities that this build knows."""
        return frozenset(row["capability"] for row in await self.execute("query-migrate-capabilities"))

    async def set_capabilities(self, capabilities: Mapping[str, bool]) -> None:
        """Set migration capabilities by their QAPI names."""
        rows = [{"capability": name, "state": state} for name, state in capabilities.items()]
        if rows:
            await self.execute("migrate-set-capabilities", {"capabilities": rows})

    async def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set migration parameters by their QAPI names."""
        if parameters:
            await self.execute("migrate-set-parameters", parameters)

    async def migrate(self, uri: str, **options: Any) -> None:
        """Start migrating to `uri`; `options` are further members of the ``migrate`` command."""
        await self.execute("migrate", {"uri": uri, **options})

    async def incoming(self, uri: str, **options: Any) -> None:
        """Start listening at `uri`, for a QEMU that was started with ``-incoming defer``."""
        await self.execute("migrate-incoming", {"uri": uri, **options})

    async def migration(self) -> Migration:
        """The state of the migration now; status ``none`` when there was none."""
        info = await self.execute("query-migrate")
        return Migration(info.get("status", "none"), info)

    async def wait_migration(self, until: Collection[str] = RESTING) -> Migration:
        """Wait until the migration is in one of the states `until`, on either side.

        Needs the capability ``events``, which `start_qemu` switches on.
        """
        with self.events("MIGRATION") as events:
            while True:
                now = await self.migration()
                if now.status in until:
                    return now
                async with self._death_notice(f"migration ({now.status})"):
                    await events.get()

    # -- guest --------------------------------------------------------------------------------------------

    async def read_physical(self, address: int, length: int) -> bytes:
        """Guest-physical memory as the CPUs see it."""
        return await self._through_file("pmemsave", {"val": address, "size": length})

    async def read_virtual(self, address: int, length: int, cpu_index: int = 0) -> bytes:
        """Memory at an address of one CPU's current address space."""
        return await self._through_file("memsave", {"val": address, "size": length, "cpu-index": cpu_index})

    async def save_physical(self, address: int, length: int, path: Path) -> None:
        """Write guest-physical memory to a file."""
        await self.execute("pmemsave", {"val": address, "size": length, "filename": str(path.absolute())})

    async def read_word(self, address: int) -> int:
        """The little-endian 32-bit word at a guest-physical address."""
        return int.from_bytes(await self.read_physical(address, 4), "little")

    async def wait_word(self, address: int, good: Callable[[int], bool]) -> int:
        """Wait until the word at `address` satisfies `good`; looks every `LOOK_EVERY` seconds."""
        while not good(word := await self.read_word(address)):
            await trio.sleep(LOOK_EVERY)
        return word

    async def wait_guest(self, program: Guest, rounds: int = 0) -> int:
        """Wait until a guest has filled its memory and made so many more rounds; returns the round."""
        await self.wait_word(program.ready_address, lambda word: word == program.ready)
        first = await self.read_word(program.counter_address)
        if not rounds:
            return first
        return await self.wait_word(
            program.counter_address, lambda word: (word - first) % (1 << 32) >= rounds
        )

    async def ram_blocks(self) -> list[RamBlock]:
        """The RAM blocks of the machine, in QEMU's order."""
        return _memory.parse_ram_blocks(await self.hmp("info ramblock"))

    async def memory_map(self) -> list[MemoryRange]:
        """What a CPU sees at which guest-physical address."""
        return _memory.parse_memory_map(await self.hmp("info mtree -f"))

    async def save_ram_block(self, idstr: str, path: Path) -> list[tuple[int, int]]:
        """Write the content of one RAM block to a sparse file of its used length, for comparison.

        Returns the ranges (offset, length) of the block that could be read: all of it, from the process' own
        memory, where the build tells the address (10.0 does, 7.2 does not) and the system lets us read it;
        else what is mapped in the guest-physical map. The guest should be stopped.
        """
        blocks = await self.ram_blocks()
        block = next((block for block in blocks if block.idstr == idstr), None)
        if block is None:
            raise EnvironmentProblem(f"{self.name} has no RAM block {idstr!r}")
        if block.host_address is not None:
            with suppress(PermissionError):
                await trio.to_thread.run_sync(_memory.copy_process_memory, self.pid, block, path)
                return [(0, block.used_length)]
        ranges = _memory.ranges_of(block, blocks, await self.memory_map())
        piece = self.folder / "piece"
        await trio.to_thread.run_sync(_memory.create_sparse, path, block.used_length)
        for part in ranges:
            await self.save_physical(part.address, part.length, piece)
            await trio.to_thread.run_sync(_memory.move_into, piece, path, part.offset, part.length)
        return [(part.offset, part.length) for part in ranges]

    async def _through_file(self, command: str, arguments: dict[str, Any]) -> bytes:
        path = Path(tempfile.mktemp(dir=self.folder))  # noqa: S306 - the folder is private, QEMU makes the file
        try:
            await self.execute(command, {**arguments, "filename": str(path)})
            return await trio.to_thread.run_sync(path.read_bytes)
        finally:
            path.unlink(missing_ok=True)


class _Output:
    """The newest bytes that a process wrote."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._scope = trio.CancelScope()

    async def collect(self, stream: trio.abc.ReceiveStream) -> None:
        with self._scope:
            async for piece in stream:
                self._take(bytes(piece))

    def drain(self, fd: int) -> None:
        """The process has ended: take what is left in the pipe. Does not wait for its end, because a process
        that QEMU left behind may hold it open."""
        self._scope.cancel()
        with suppress(BlockingIOError):
            while piece := os.read(fd, 1 << 16):
                self._take(piece)

    def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) >= KEPT_OUTPUT:
            self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        return b"".join(self._pieces)[-KEPT_OUTPUT:].decode("utf-8", "replace")


@asynccontextmanager
async def start_qemu(
    binary: Path | str,
    arguments: Sequence[str],
    *,
    program: Guest | None = None,
    name: str = "",
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    folder: Path | None = None,
) -> AsyncIterator[QemuProcess]:
    """A QEMU for the time of the block.

    `binary` with `arguments`, to which a QMP monitor, ``-display none`` and, for a guest `program`, what
    boots it are added; ``{folder}`` in an argument stands for the private folder. `name` is for messages,
    `env` adds to the environment, `pass_fds` are inherited, `folder` is where the private folder is made
    (default: the system's temporary directory). Raises QemuDied if QEMU ends before its greeting,
    EnvironmentProblem if it cannot be started.
    """
    home = Path(tempfile.mkdtemp(prefix="qmig-", dir=folder))
    try:
        boot = program.boot_arguments(home) if program is not None else []
        given = [argument.replace("{folder}", str(home)) for argument in arguments]
        command = [str(binary), *given, *boot, "-display", "none"]
        async with (
            _process(command, home, pass_fds, env or {}) as (process, monitor),
            background() as nursery,
            AsyncExitStack() as stack,
        ):
            vm = QemuProcess(name or Path(binary).name, process, home)
            assert process.stdout is not None
            nursery.start_soon(vm._output.collect, process.stdout)  # noqa: SLF001 - same module
            nursery.start_soon(_end_with, process, monitor)
            vm._qmp = await vm._connect(stack, monitor)  # noqa: SLF001
            await vm.set_capabilities({"events": True})
            yield vm
    finally:
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def _process(
    command: list[str], home: Path, pass_fds: Sequence[int], env: Mapping[str, str]
) -> AsyncIterator[tuple[trio.Process, socket.socket]]:
    """The process and our end of its monitor; killed with its group and reaped at the end."""
    ours, theirs = socket.socketpair()
    async with _mourner(home) as mourn:
        with ours, theirs:
            ours.setblocking(False)
            monitor = ["-chardev", f"socket,id=qmig-qmp,fd={theirs.fileno()}", "-qmp", "chardev:qmig-qmp"]
            try:
                process = await trio.lowlevel.open_process(
                    [*command, *monitor], cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[*pass_fds, theirs.fileno()],
                    env={**os.environ, **env},
                )  # fmt: skip
            except OSError as problem:
                raise EnvironmentProblem(f"cannot start {command[0]}: {problem.strerror}") from problem
            try:
                mourn(process.pid)
                theirs.close()
                yield process, ours
            finally:
                with trio.CancelScope(shield=True):
                    _kill_group(process)
                    await process.wait()
                    assert process.stdout is not None
                    await process.stdout.aclose()


@asynccontextmanager
async def _mourner(home: Path) -> AsyncIterator[Callable[[int], None]]:
    """Ends QEMU and removes its folder should this process die without unwinding.

    A shell that reads QEMU's process id, then waits for the end of its input, which is our end: nobody else
    has the pipe's other side.
    """
    reader, writer = os.pipe()
    try:
        try:
            script = 'read -r qemu; read -r _; kill -s KILL -- "-$qemu"; rm -rf -- "$1"'
            shell = await trio.lowlevel.open_process(
                ["sh", "-c", script, "sh", str(home)], stdin=reader, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(reader)
        try:
            yield lambda pid: _write_line(writer, pid)
        finally:
            with trio.CancelScope(shield=True):
                shell.kill()
                await shell.wait()
    finally:
        os.close(writer)


def _write_line(fd: int, number: int) -> None:
    os.write(fd, b"%d\n" % number)


def _kill_group(process: trio.Process) -> None:
    """QEMU and what it started (``exec:`` children). A group's number is not reused while it has members."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end_with(process: trio.Process, monitor: socket.socket) -> None:
    """Once QEMU has ended, what it started goes too, and the monitor ends even if a stray process that
    inherited its other end keeps that open. What QEMU has still said can be read all the same."""
    await process.wait()
    _kill_group(process)
    with suppress(OSError):  # closed already
        monitor.shutdown(socket.SHUT_RDWR)
