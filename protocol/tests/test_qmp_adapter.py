"""The QMP adapter against a scripted monitor: what QEMU rarely does, and what it does at the wrong time."""

import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from qmig.qmp import UNREAD_EVENTS, Qmp, QmpClosed, QmpCommandError, QmpConnectError, QmpError, open_qmp

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 9, "minor": 8, "micro": 7}, "package": "Test 9.8.7-1"},
        "capabilities": ["oob"],
    }
}
MIGRATION = {
    "event": "MIGRATION",
    "data": {"status": "active"},
    "timestamp": {"seconds": 1, "microseconds": 0},
}


class Monitor:
    """The other end of the session."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._left = ""

    async def say(self, *messages: dict[str, Any]) -> None:
        await self.stream.send_all(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    async def hear(self) -> dict[str, Any]:
        """The next request; clients need not end it by a new line."""
        while True:
            try:
                message, end = json.JSONDecoder().raw_decode(self._left)
            except ValueError:
                data = await self.stream.receive_some()
                if not data:
                    raise EOFError from None
                self._left += data.decode()
            else:
                self._left = self._left[end:].lstrip()
                assert isinstance(message, dict)
                return message

    async def greet(self) -> None:
        await self.say(GREETING)
        request = await self.hear()
        assert request == {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}
        await self.say({"return": {}})


@asynccontextmanager
async def session(play: Callable[[Monitor], Awaitable[None]]) -> AsyncIterator[Qmp]:
    """A session with a monitor that greets and then follows `play`."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    async def run() -> None:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as stream:
            monitor = Monitor(stream)
            await monitor.greet()
            await play(monitor)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        async with open_qmp(ours) as qmp:
            yield qmp
        nursery.cancel_scope.cancel()


async def answer_all(monitor: Monitor) -> None:
    with suppress(EOFError):
        while True:
            request = await monitor.hear()
            await monitor.say({"return": {"did": request}, "id": request["id"]})


async def test_greeting_and_answer() -> None:
    async with session(answer_all) as qmp:
        assert qmp.version == (9, 8, 7)
        assert qmp.package == "Test 9.8.7-1"
        did = (await qmp.execute("migrate", {"uri": "unix:x"}))["did"]
        assert (did["execute"], did["arguments"]) == ("migrate", {"uri": "unix:x"})
        assert (await qmp.execute("migrate-pause", oob=True))["did"]["exec-oob"] == "migrate-pause"
        assert not qmp.closed
    assert qmp.closed
    with pytest.raises(QmpClosed, match="query-status: monitor connection was closed by its user") as caught:
        await qmp.execute("query-status")
    assert not caught.value.by_peer
    with pytest.raises(QmpClosed):
        qmp.send_fd(0)


async def test_answers_in_any_order() -> None:
    async def play(monitor: Monitor) -> None:
        first, second = await monitor.hear(), await monitor.hear()
        await monitor.say({"return": second["execute"], "id": second["id"]})
        await monitor.say({"return": first["execute"], "id": first["id"]})
        await trio.sleep_forever()

    got = {}

    async def ask(qmp: Qmp, command: str) -> None:
        got[command] = await qmp.execute(command)

    async with session(play) as qmp, trio.open_nursery() as nursery:
        nursery.start_soon(ask, qmp, "one")
        nursery.start_soon(ask, qmp, "two")
    assert got == {"one": "one", "two": "two"}


async def test_an_error_keeps_request_and_reply() -> None:
    async def play(monitor: Monitor) -> None:
        request = await monitor.hear()
        await monitor.say({"error": {"class": "GenericError", "desc": "not now"}, "id": request["id"]})
        await trio.sleep_forever()

    async with session(play) as qmp:
        with pytest.raises(QmpCommandError, match=r"^migrate: not now$") as caught:
            await qmp.execute("migrate", {"uri": "tcp:x:1"})
    assert caught.value.error_class == "GenericError"
    assert caught.value.desc == "not now"
    assert caught.value.request["arguments"] == {"uri": "tcp:x:1"}
    assert caught.value.reply["error"] == {"class": "GenericError", "desc": "not now"}


async def test_an_answer_that_is_none() -> None:
    async def play(monitor: Monitor) -> None:
        request = await monitor.hear()
        await monitor.say({"neither": 1, "id": request["id"]})
        await trio.sleep_forever()

    async with session(play) as qmp:
        with pytest.raises(QmpError, match="migrate: QMP reply is missing"):
            await qmp.execute("migrate")


async def test_connection_ends_before_the_answer() -> None:
    async def play(monitor: Monitor) -> None:
        await monitor.hear()

    async with session(play) as qmp:
        with pytest.raises(QmpClosed, match=r"^quit: QEMU closed the monitor connection$") as caught:
            await qmp.execute("quit")
        assert caught.value.by_peer
        assert caught.value.request == {"execute": "quit"}
        assert (await qmp.wait_closed()).by_peer
        with pytest.raises(QmpClosed, match="QEMU closed"):
            await qmp.execute("query-status")


@pytest.mark.parametrize(
    "garbage",
    [b"\xff{\n", b"no json\n", b"5\n", b"[" * 100_000 + b"\n", b"x" * (17 << 20), b'{"error": 1}\n'],
)
async def test_garbage_ends_the_session(garbage: bytes) -> None:
    async def play(monitor: Monitor) -> None:
        await monitor.hear()
        with suppress(trio.BrokenResourceError):
            await monitor.stream.send_all(garbage)
        await trio.sleep_forever()

    async with session(play) as qmp:
        with pytest.raises(QmpClosed, match="monitor connection ended") as caught:
            await qmp.execute("query-status")
        assert not caught.value.by_peer


async def test_a_late_answer_is_dropped_silently(capfd: pytest.CaptureFixture[str]) -> None:
    async def play(monitor: Monitor) -> None:
        late = await monitor.hear()
        now = await monitor.hear()
        await monitor.say({"return": "late", "id": late["id"]}, {"return": "now", "id": now["id"]})
        await trio.sleep_forever()

    async with session(play) as qmp:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(qmp.execute, "slow")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert await qmp.execute("quick") == "now"
    assert capfd.readouterr() == ("", "")


async def test_events_reach_each_subscriber_and_the_end_is_told() -> None:
    async def play(monitor: Monitor) -> None:
        request = await monitor.hear()
        await monitor.say(MIGRATION, {**MIGRATION, "event": "STOP"}, {"return": {}, "id": request["id"]})

    async with session(play) as qmp:
        with qmp.events("MIGRATION") as some, qmp.events() as every:
            await qmp.execute("migrate")
            assert await some.get() == MIGRATION
            assert [event["event"] for event in every.unread()] == ["MIGRATION", "STOP"]
            with pytest.raises(QmpClosed, match="QEMU closed"):
                await anext(aiter(some))
        with qmp.events() as afterwards, pytest.raises(QmpClosed):
            await afterwards.get()
        assert [event["event"] for event in qmp.recent] == ["MIGRATION", "STOP"]


async def test_a_flood_of_events_is_bounded() -> None:
    async def play(monitor: Monitor) -> None:
        request = await monitor.hear()
        line = json.dumps(MIGRATION).encode() + b"\n"
        for _ in range(70):
            await monitor.stream.send_all(line * 1000)
        await monitor.say({"return": {}, "id": request["id"]})
        await trio.sleep_forever()

    async with session(play) as qmp:
        with qmp.events() as lazy, qmp.events("STOP") as other:
            await qmp.execute("flood")
            assert len(qmp.recent) <= 256
            assert len(lazy.unread()) == UNREAD_EVENTS
            with pytest.raises(QmpError, match=f"more than {UNREAD_EVENTS} events"):
                await lazy.get()
            assert other.unread() == []


async def test_cancel_of_a_waiting_subscriber() -> None:
    async with session(answer_all) as qmp:
        with qmp.events() as events:
            with trio.move_on_after(0.01) as scope:
                await events.get()
            assert scope.cancelled_caught
        assert (await qmp.execute("still"))["did"]["execute"] == "still"


async def test_a_monitor_that_does_not_read_holds_nobody() -> None:
    async def play(monitor: Monitor) -> None:
        await trio.sleep_forever()

    async with session(play) as qmp, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(qmp.execute, "x", {"y": "z" * 100_000})
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_file_descriptors_are_passed() -> None:
    received: list[int] = []

    async def play(monitor: Monitor) -> None:
        sock = monitor.stream.socket
        _, ancillary, _, _ = await sock.recvmsg(1, 1000)
        for _, _, data in ancillary:
            received.extend(memoryview(data).cast("i"))
        await answer_all(monitor)

    reader, writer = os.pipe()
    async with session(play) as qmp:
        qmp.send_fd(writer)
        os.close(writer)
        await qmp.execute("getfd", {"fdname": "x"})
        os.write(received[0], b"through")
        os.close(received[0])
        assert os.read(reader, 100) == b"through"
        with pytest.raises(QmpError, match="cannot pass"):
            qmp.send_fd(writer)
    os.close(reader)


# -- connecting --------------------------------------------------------------------------------------


async def test_no_greeting_but_the_end() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    with pytest.raises(QmpConnectError, match="closed before its greeting") as caught:
        async with open_qmp(ours):
            pytest.fail("entered")
    assert caught.value.by_peer
    assert ours.fileno() == -1


@pytest.mark.parametrize("greeting", [b"SSH-2.0-x\r\n", b"{}\n", b'{"QMP": 5}\n', b"[1]\n"])
async def test_something_else_answers(greeting: bytes) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.sendall(greeting)
        with pytest.raises(QmpConnectError, match="no QMP session") as caught:
            async with open_qmp(ours):
                pytest.fail("entered")
        assert not caught.value.by_peer


async def test_refused_negotiation() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.sendall(json.dumps(GREETING).encode() + b'\n{"error": {"class": "x", "desc": "y"}}\n')
        with pytest.raises(QmpConnectError, match="Negotiation failed"):
            async with open_qmp(ours):
                pytest.fail("entered")


async def test_cancel_before_the_greeting() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        with trio.move_on_after(0.05) as scope:
            async with open_qmp(ours):
                pytest.fail("entered")
        assert scope.cancelled_caught
        assert theirs.recv(1) == b""


async def test_addresses(tmp_path: Path) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        monitor = Monitor(stream)
        await monitor.greet()
        await answer_all(monitor)

    path = tmp_path / "qmp.sock"
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        for address in (path, str(path), f"unix:{path}", f"tcp:127.0.0.1:{port}"):
            async with open_qmp(address) as qmp:
                assert (await qmp.execute("x"))["did"]["execute"] == "x"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/nonexistent/sock", "No such file"),
        ("unix:/nonexistent/sock", "No such file"),
        ("tcp:127.0.0.1:notaport", "not an address"),
        ("tcp:nohost", "not an address"),
        ("unix:" + "x" * 200, "not an address|too long"),
        ("tcp:127.0.0.1:1", "attempts to connect"),
    ],
)
async def test_addresses_that_lead_nowhere(address: str, reason: str) -> None:
    with pytest.raises(QmpConnectError, match=reason) as caught:
        async with open_qmp(address):
            pytest.fail("entered")
    assert str(caught.value).startswith(address)
