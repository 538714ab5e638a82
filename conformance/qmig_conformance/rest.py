"""Tells that a QEMU rests: that nothing in it will happen unless something is sent to it.

Rule 1: a process rests when all its threads sleep in the kernel, in waits that have no end of their own, and
none of them has run between two looks at all of them. What wakes such a thread is one that runs, or input;
what was sent to a socket that a thread waits for has woken it before the sending call returned. So a process
that rests stays so, however long or short it is looked at, and however busy the machine is.
Rule 2: an event loop's poll counts as a wait without an end, and may have been left and entered again: what
it does when its time is over is housekeeping, of which a running guest makes plenty. A sleep, and a wait for
a lock that gives up by itself, are no rest.
Rule 3: threads that run the guest are left out; the guest is no part of the question. What passes between the
process and us begins the count anew (`Watch.touch`).
Rule 4: a monitor that has not answered when its process rests does not answer.
Rule 5: a process may also turn in circles. Then it is counted how much it has computed since something passed
last, in its own processor time, which a busy machine does not change (`SPIN`); or, where it sleeps for a
moment in each round, how many times one of its threads was put to sleep (`NAPS`).
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import trio

#: How long until the next look, in seconds. Looks take time of their own; nothing depends on this.
BETWEEN_LOOKS = 0.002
#: Looks without a change behind which what our own side had to do is done: each of them lets it send and read
#: all that can be sent and read.
UNANSWERED = 12
#: Nanoseconds of its own processor time in which a destination that does something would have done it: a
#: whole good stream of 16 MiB takes a fiftieth of this.
SPIN = 2_000_000_000
#: Sleeps of one thread behind which what it waits for will not come: a good migration has a handful.
NAPS = 1000


class _Calls(NamedTuple):
    """Numbers of system calls: an event loop's, those that sleep, those that wait for a lock."""

    polls: frozenset[int] = frozenset()
    sleeps: frozenset[int] = frozenset()
    locks: frozenset[int] = frozenset()  # the fourth argument is the wait's end


_CALLS = {
    "x86_64": _Calls(frozenset({7, 23, 232, 270, 271, 281, 441}), frozenset({35, 230}), frozenset({202})),
    "aarch64": _Calls(frozenset({22, 72, 73, 441}), frozenset({101, 115}), frozenset({98})),
}.get(platform.machine(), _Calls())


class Thread(NamedTuple):
    """One thread as the kernel shows it. `ran` is its time on a processor and how often it got one."""

    number: int
    state: str
    ran: str
    call: str

    @property
    def number_of_call(self) -> int:
        """-1: in none, or the kernel does not say."""
        word = self.call.partition(" ")[0]
        return int(word) if word.isdigit() else -1

    @property
    def computed(self) -> int:
        """Processor time in nanoseconds."""
        return int(self.ran.split()[0])

    @property
    def turns(self) -> int:
        """How often it got a processor."""
        return int(self.ran.split()[2])

    @property
    def naps(self) -> bool:
        """Whether it sleeps by itself, for a time of its own."""
        return self.number_of_call in _CALLS.sleeps

    @property
    def sleeps(self) -> bool:
        """Whether only something else can wake it."""
        call = self.number_of_call
        if self.state != "S" or call in _CALLS.sleeps or self.call.startswith("running"):
            return False
        return call not in _CALLS.locks or int(self.call.split()[4], 16) == 0

    def as_before(self, before: Thread) -> bool:
        """Whether nothing was done since."""
        polls = self.number_of_call in _CALLS.polls and self.number_of_call == before.number_of_call
        return self.ran == before.ran or polls


def look(pid: int, without: Collection[int] = ()) -> tuple[Thread, ...] | None:
    """The threads of a process, those `without` left out; None if it is gone."""
    found = []
    try:
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            number = int(task.name)
            if number not in without:
                stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
                state = stat[stat.rindex(")") + 2]
                found.append(Thread(number, state, (task / "schedstat").read_text(), _call(task)))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return tuple(found)


def _call(task: Path) -> str:
    try:
        return (task / "syscall").read_text()
    except PermissionError:
        return ""


class Watch:
    """Looks at one process again and again. `without` are the guest's threads."""

    def __init__(self, pid: int, without: Collection[int] = ()) -> None:
        self.pid = pid
        self.without = frozenset(without)
        self._last: tuple[Thread, ...] | None = None
        self._first: dict[int, int] = {}  # processor time of each thread when something passed last
        self._turns: dict[int, int] = {}  # turns of each thread that was seen to nap since
        #: looks in a row at which it rested
        self.quiet = 0
        #: it turns in circles
        self.spins = False

    def touch(self) -> None:
        """Something passed between the process and us."""
        self.quiet = 0
        self.spins = False
        self._last = None
        self._first.clear()
        self._turns.clear()

    def look(self) -> bool:
        """Looks once; whether it rested since the look before."""
        now, before = look(self.pid, self.without), self._last
        rested = (
            now is not None
            and before is not None
            and [thread.number for thread in now] == [thread.number for thread in before]
            and all(thread.sleeps and thread.as_before(old) for thread, old in zip(now, before, strict=True))
        )
        self._last = now
        self.quiet = self.quiet + 1 if rested else 0
        for thread in now or ():
            spent = thread.computed - self._first.setdefault(thread.number, thread.computed)
            self.spins |= spent > SPIN
            if thread.naps:
                self.spins |= thread.turns - self._turns.setdefault(thread.number, thread.turns) > NAPS
        return rested

    async def until_quiet(self, looks: int = 1) -> None:
        """Comes back when it has rested for so many looks in a row, or spins. Never, if it does neither."""
        self.touch()
        while self.quiet < looks and not self.spins:
            self.look()
            await trio.sleep(BETWEEN_LOOKS)

    def words(self) -> str:
        """What was seen at the last look."""
        threads = self._last or ()
        if self.spins:
            return (
                f"since anything passed it has computed for {SPIN / 1e9:g} s of processor time, or a thread"
                f" has slept {NAPS} times"
            )
        calls = sorted({str(thread.number_of_call) for thread in threads})
        return f"{len(threads)} threads asleep in system calls {', '.join(calls)}"
