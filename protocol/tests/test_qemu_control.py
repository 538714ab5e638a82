"""Starting, steering and ending a real QEMU; what is left behind: nothing."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from qmig.builds import Qemu
from qmig.errors import EnvironmentProblem
from qmig.peers.qemu import QemuDied, QemuProcess, start_qemu
from qmig.qmp import QmpCommandError, QmpConnectError
from qmig.testing.guest import firmware

MIB = 1 << 20
SMALL = ["-M", "q35", "-accel", "tcg", "-m", "16M", "-nodefaults"]


def children() -> set[int]:
    """Processes whose parent is this one, zombies included."""
    mine = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == os.getpid():
                mine.add(int(entry.name))
    return mine


def is_alive(pid: int) -> bool:
    """Whether a process runs. A killed one whose parent has yet to reap it does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where private folders are made. Afterwards nothing may be left: file, process, descriptor."""
    fds, processes = len(os.listdir("/proc/self/fd")), children()  # noqa: PTH208 - links, not files
    place = tmp_path / "private"
    place.mkdir()
    yield place
    assert list(place.iterdir()) == []
    assert children() == processes
    assert len(os.listdir("/proc/self/fd")) == fds  # noqa: PTH208


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def test_version_and_blocks(qemu: Qemu, folder: Path) -> None:
    async with start_qemu(qemu.binary, SMALL, folder=folder) as vm:
        assert ".".join(map(str, vm.version)) == qemu.version.partition("~")[0].partition("+")[0]
        assert vm.qmp.package == qemu.package
        blocks = {block.idstr: block for block in await vm.ram_blocks()}
        assert blocks["pc.ram"].used_length == 16 * MIB
        assert blocks["pc.ram"].page_size == 4096
        assert {"events", "multifd"} <= await vm.supported_capabilities()
        assert (await vm.migration()).status == "none"
        assert vm.returncode is None
        assert vm.output == ""


async def test_migration_to_a_file(qemu: Qemu, folder: Path, tmp_path: Path) -> None:
    program = firmware(fill=(MIB, 2 * MIB))
    async with start_qemu(qemu.binary, SMALL, program=program, folder=folder) as vm:
        await vm.wait_guest(program)
        await vm.migrate(f"exec:cat > {tmp_path}/stream")
        outcome = await vm.wait_migration()
        assert outcome.status == "completed", outcome.error
        assert outcome.info["ram"]["total"] >= 16 * MIB
    assert (tmp_path / "stream").read_bytes()[:8] == b"QEVM\0\0\0\3"
    assert program.page(MIB + 0x3000) in (tmp_path / "stream").read_bytes()


async def test_failed_migration_has_a_reason(qemu: Qemu, folder: Path) -> None:
    async with start_qemu(qemu.binary, SMALL, folder=folder) as vm:
        try:
            await vm.migrate(f"unix:{vm.folder}/nobody")
        except QmpCommandError as problem:
            reason = problem.desc  # some versions refuse at once
        else:
            outcome = await vm.wait_migration()
            assert outcome.status == "failed"
            reason = outcome.error
        assert "nobody" in reason


async def test_parameters_and_refused_commands(qemu: Qemu, folder: Path) -> None:
    async with start_qemu(qemu.binary, SMALL, folder=folder) as vm:
        await vm.set_capabilities({"multifd": True})
        await vm.set_parameters({"multifd-channels": 5})
        assert (await vm.execute("query-migrate-parameters"))["multifd-channels"] == 5
        with pytest.raises(QmpCommandError, match="migrate-incoming") as caught:
            await vm.incoming("defer")
        assert caught.value.error_class == "GenericError"
        assert caught.value.request["execute"] == "migrate-incoming"
        assert "error" in caught.value.reply


async def test_block_content_agrees_with_the_cpus_view(qemu: Qemu, folder: Path, tmp_path: Path) -> None:
    program = firmware(fill=(MIB, 2 * MIB))
    async with start_qemu(qemu.binary, SMALL, program=program, folder=folder) as vm:
        await vm.wait_guest(program)
        await vm.execute("stop")
        for name in ("pc.ram", "pc.bios"):
            covered = await vm.save_ram_block(name, tmp_path / "block")
            block = next(block for block in await vm.ram_blocks() if block.idstr == name)
            content = (tmp_path / "block").read_bytes()
            assert len(content) == block.used_length
            seen = 0
            for part in await vm.memory_map():
                if part.region == name:
                    expected = content[part.offset : part.offset + part.length]
                    assert await vm.read_physical(part.address, part.length) == expected
                    assert any(offset <= part.offset < offset + length for offset, length in covered)
                    seen += part.length
            assert seen >= block.used_length // 2
        assert await vm.read_virtual(MIB, 4096) == program.page(MIB)
        with pytest.raises(EnvironmentProblem, match="no RAM block 'none'"):
            await vm.save_ram_block("none", tmp_path / "block")


async def test_the_body_s_own_exception_comes_out(qemu: Qemu, folder: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with start_qemu(qemu.binary, SMALL, folder=folder):
            raise KeyError("mine")


async def test_cancel_while_waiting_for_a_migration(qemu: Qemu, folder: Path) -> None:
    program = firmware(fill=(MIB, 8 * MIB))
    with trio.CancelScope() as scope:
        async with (
            start_qemu(qemu.binary, SMALL, program=program, folder=folder) as vm,
            trio.open_nursery() as nursery,
        ):
            await vm.wait_guest(program)
            await vm.set_parameters({"max-bandwidth": 4096})
            await vm.migrate(f"exec:cat > {vm.folder}/slow")
            nursery.start_soon(vm.wait_migration)
            await vm.wait_migration({"active"})
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_killed_qemu_ends_every_wait(qemu: Qemu, folder: Path) -> None:
    async def wait(vm: QemuProcess) -> None:
        with pytest.raises(QemuDied, match=r"SIGKILL during (migration|query-migrate)"):
            await vm.wait_migration()
        seen.append("migration")

    seen: list[str] = []
    async with start_qemu(qemu.binary, SMALL, folder=folder, name="victim") as vm:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, vm)
            await trio.testing.wait_all_tasks_blocked()
            vm.kill()
        with pytest.raises(QemuDied, match="victim was killed by SIGKILL during query-status") as caught:
            await vm.execute("query-status")
        assert caught.value.returncode == -signal.SIGKILL
        assert await vm.wait_exit() == -signal.SIGKILL
    assert seen == ["migration"]


async def test_quit(qemu: Qemu, folder: Path) -> None:
    async with start_qemu(qemu.binary, SMALL, folder=folder) as vm:
        assert await vm.quit() == 0


async def test_words_of_a_qemu_that_does_not_start(qemu: Qemu, folder: Path) -> None:
    with pytest.raises(QemuDied, match=r"exit status 1 during start: .*unsupported machine type") as caught:
        async with start_qemu(qemu.binary, ["-M", "no-such-machine"], folder=folder):
            pytest.fail("started")
    assert "unsupported machine type" in caught.value.output


async def test_a_hung_qemu_is_cancelled_and_cleaned_away(qemu: Qemu, folder: Path) -> None:
    async with start_qemu(qemu.binary, SMALL, folder=folder) as vm:
        os.kill(vm.pid, signal.SIGSTOP)
        with trio.move_on_after(0.2) as scope:
            await vm.execute("query-status")
        assert scope.cancelled_caught
        # Even a monitor whose buffer is full of unread commands does not hold us.
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(vm.execute, "query-status", {"x": "y" * 10_000})
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


async def test_exec_children_go_too(qemu: Qemu, folder: Path, tmp_path: Path) -> None:
    async with start_qemu(qemu.binary, SMALL, folder=folder) as vm:
        await vm.migrate(f"exec:echo $$ > {tmp_path}/pid; exec sleep 1000")
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            await trio.sleep(0.01)
        child = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{child}").exists()
    while is_alive(child):
        await trio.sleep(0.01)


async def test_our_own_death_ends_qemu_too(qemu: Qemu, folder: Path) -> None:
    text = f"""if True:
        import trio
        from qmig.peers.qemu import start_qemu
        async def main():
            async with start_qemu({str(qemu.binary)!r}, {SMALL!r}, folder={str(folder)!r}) as vm:
                print(vm.pid, flush=True)
                await trio.sleep_forever()
        trio.run(main)
    """
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        pid = int(await trio.to_thread.run_sync(user.stdout.readline))
        assert is_alive(pid)
        user.kill()
    while is_alive(pid) or list(folder.iterdir()):
        await trio.sleep(0.01)


# -- without a QEMU ---------------------------------------------------------------


async def test_no_such_program(folder: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot start /nonexistent/qemu: No such file"):
        async with start_qemu("/nonexistent/qemu", [], folder=folder):
            pytest.fail("started")


async def test_cancel_before_the_greeting(folder: Path, tmp_path: Path) -> None:
    mute = script(tmp_path / "mute", "exec sleep 1000")
    with trio.move_on_after(0.1) as scope:
        async with start_qemu(mute, [], folder=folder):
            pytest.fail("greeted")
    assert scope.cancelled_caught


async def test_a_program_that_is_no_qemu(folder: Path, tmp_path: Path) -> None:
    find = "re.search(r'fd=([0-9]+)', ' '.join(sys.argv))[1]"
    talk = f"import os, re, sys, time; os.write(int({find}), b'hello\\n'); time.sleep(1000)"
    talker = script(tmp_path / "talker", f'exec {sys.executable} -c "{talk}" "$@"')
    with pytest.raises(QmpConnectError, match="no QMP session"):
        async with start_qemu(talker, [], folder=folder):
            pytest.fail("greeted")


async def test_the_last_words_are_kept_and_bounded(folder: Path, tmp_path: Path) -> None:
    chatty = script(tmp_path / "chatty", "yes line | head -c 1000000; echo 'the reason'; exit 7")
    with pytest.raises(QemuDied, match="status 7 during start: line; line; the reason") as caught:
        async with start_qemu(chatty, [], folder=folder):
            pytest.fail("greeted")
    assert 200_000 < len(caught.value.output) <= 256 << 10


async def test_left_over_writer_of_the_output_does_not_hold_us(folder: Path, tmp_path: Path) -> None:
    """A process that QEMU started outside its group keeps the output open: we do not wait for it."""
    daemon = script(
        tmp_path / "daemon", f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' &\n"
        f"while ! test -s {tmp_path}/pid; do :; done; echo gone; exit 3"
    )  # fmt: skip
    try:
        with trio.fail_after(60), pytest.raises(QemuDied, match="exit status 3 during start: gone"):
            async with start_qemu(daemon, [], folder=folder):
                pytest.fail("greeted")
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_folder_in_arguments(folder: Path, tmp_path: Path) -> None:
    echo = script(tmp_path / "echo", 'echo "$1"; pwd; exit 1')
    with pytest.raises(QemuDied) as caught:
        async with start_qemu(echo, ["{folder}/x"], folder=folder):
            pytest.fail("greeted")
    first, second = caught.value.output.split()
    assert first == f"{second}/x"
    assert Path(second).parent == folder
