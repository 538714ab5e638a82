"""A guest that does as it is told: its CPU makes the accesses that a driver on the host writes down.

    program = remote_firmware(fill=(8 << 20, 9 << 20))     # in place of the firmware: nothing else has run
    program = remote_kernel("x86_64", fill=...)            # behind the machine's own firmware (multiboot)
    program = remote_kernel("aarch64", fill=...)           # -M virt -kernel
    program.guest, program.mailbox                         # what boots it; where its mailbox is

    with Mailbox(path_of_the_guests_ram, program) as mailbox:       # memory-backend-file, share=on
        mailbox.post([write(bar, 1), read(bar + 4, 2)]     )   # a list of accesses ...
        mailbox.answers()                                  # ... None until the guest has made all of them

A driver can thus be written once, in Python, for every device and both architectures, while what the device
sees are a guest CPU's loads, stores, ``in`` and ``out``. The program:

1. fills pages as `qmig.testing.guest` does;
2. stores `READY` in the mailbox;
3. for ever: adds one to the heartbeat; if the request number differs from the answer number, makes the posted
   accesses in order, stores what was read beside each, and sets the answer number to the request number.

Layout of the mailbox, little-endian words: heartbeat, request number, answer number, count of accesses,
`READY`; from byte 64 on one access of 16 bytes each: operation, value, 64-bit address (x86: its lower half).
The host writes to guest memory behind QEMU's back: it is not marked dirty, so do not post during a migration.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from qmig.testing.guest import (
    ARM_RAM,
    PAGE,
    READY,
    ArmCode,
    Code,
    Guest,
    Range,
    arm_fill,
    u32,
    x86_back,
    x86_fill,
    x86_flat_mode,
)

#: Where an access list begins, and the bytes of one access.
LIST, ACCESS = 64, 16
#: Bytes of a mailbox.
MAILBOX_SIZE = 64 << 10
#: Accesses that a mailbox holds.
MOST = (MAILBOX_SIZE - LIST) // ACCESS
X86_PROGRAM, X86_MAILBOX = 0x200000, 0x300000
ARM_PROGRAM, ARM_MAILBOX = ARM_RAM + 0x80000, ARM_RAM + 0x300000


class Operation(IntEnum):
    """What a guest can be told. Ports exist on x86 only."""

    READ8 = 0
    READ16 = 1
    READ32 = 2
    WRITE8 = 3
    WRITE16 = 4
    WRITE32 = 5
    IN8 = 6
    IN16 = 7
    IN32 = 8
    OUT8 = 9
    OUT16 = 10
    OUT32 = 11

    @property
    def width(self) -> int:
        """Bytes of the access."""
        return 1 << self % 3

    @property
    def reads(self) -> bool:
        return self // 3 in {0, 2}


@dataclass(frozen=True, slots=True)
class Access:
    """One access; `value` counts for what writes."""

    operation: Operation
    address: int
    value: int = 0

    def pack(self) -> bytes:
        return struct.pack("<IIQ", self.operation, self.value & 0xFFFFFFFF, self.address)


@dataclass(frozen=True, slots=True)
class RemoteGuest:
    """A program that waits for accesses. `mailbox` is guest-physical, `ram` where RAM begins."""

    guest: Guest
    mailbox: int
    ram: int


class Mailbox:
    """The host's view of a mailbox, in the file that is the guest's RAM."""

    def __init__(self, ram: Path, program: RemoteGuest) -> None:
        with ram.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._ram, self._at = program.ram, program.mailbox - program.ram
        #: place in the list and width of every posted access that reads
        self._reads: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._map[self._at + offset : self._at + offset + 4], "little")

    @property
    def heartbeat(self) -> int:
        return self._word(0)

    @property
    def ready(self) -> bool:
        return self._word(16) == READY

    def post(self, accesses: Sequence[Access]) -> None:
        """Ask for accesses. ValueError if there are more than `MOST`, or an earlier list is not answered."""
        if len(accesses) > MOST or self._word(4) != self._word(8):
            raise ValueError("too many accesses, or posted before the last list was answered")
        self._reads = [
            (place, access.operation.width) for place, access in enumerate(accesses) if access.operation.reads
        ]
        data = b"".join(access.pack() for access in accesses)
        self._map[self._at + LIST : self._at + LIST + len(data)] = data
        self._map[self._at + 12 : self._at + 16] = u32(len(accesses))
        self._map[self._at + 4 : self._at + 8] = u32(self._word(4) + 1)

    def answers(self) -> list[int] | None:
        """What was read, in order; None while the guest has not made all accesses."""
        if self._word(4) != self._word(8):
            return None
        return [self._word(LIST + ACCESS * place + 4) & (1 << 8 * width) - 1 for place, width in self._reads]

    def read_memory(self, address: int, length: int) -> bytes:
        """Guest memory."""
        return self._map[address - self._ram : address - self._ram + length]

    def write_memory(self, address: int, data: bytes) -> None:
        """Put data where the guest, or a device, will read it."""
        self._map[address - self._ram : address - self._ram + len(data)] = data

    def all_memory(self) -> mmap.mmap:
        """The whole RAM, for a digest."""
        return self._map


# -- x86 --------------------------------------------------------------------------------------------------

_X86_ACCESSES: dict[Operation, tuple[str, bytes]] = {
    Operation.READ8: ("mov al, [edx]", b"\x8a\x02"),
    Operation.READ16: ("mov ax, [edx]", b"\x66\x8b\x02"),
    Operation.READ32: ("mov eax, [edx]", b"\x8b\x02"),
    Operation.WRITE8: ("mov [edx], al", b"\x88\x02"),
    Operation.WRITE16: ("mov [edx], ax", b"\x66\x89\x02"),
    Operation.WRITE32: ("mov [edx], eax", b"\x89\x02"),
    Operation.IN8: ("in al, dx", b"\xec"),
    Operation.IN16: ("in ax, dx", b"\x66\xed"),
    Operation.IN32: ("in eax, dx", b"\xed"),
    Operation.OUT8: ("out dx, al", b"\xee"),
    Operation.OUT16: ("out dx, ax", b"\x66\xef"),
    Operation.OUT32: ("out dx, eax", b"\xef"),
}
#: bytes of one operation's code, so that its number leads to it
_SLOT = 8


def _x86_remote(asm: Code, fill: Range, seed: int) -> None:
    x86_fill(asm, fill, PAGE, seed)
    asm.put("mov esi, MAILBOX", 0xBE, u32(X86_MAILBOX))
    asm.put("mov dword [esi+16], READY", 0xC7, 0x46, 16, u32(READY))
    loop = asm.here()
    asm.put("loop: inc dword [esi]", 0xFF, 0x06)
    asm.put("mov ebp, [esi+4]       ; request", 0x8B, 0x6E, 4)
    asm.put("cmp ebp, [esi+8]       ; answer", 0x3B, 0x6E, 8)
    asm.put("jne work", 0x75, 4)
    asm.put("pause", 0xF3, 0x90)
    x86_back(asm, "jmp loop", 0xEB, loop)
    asm.put("work: mov ecx, [esi+12]", 0x8B, 0x4E, 12)
    asm.put("lea edi, [esi+64]", 0x8D, 0x7E, LIST)
    size = _SLOT * len(Operation)
    following = asm.here()
    asm.put("next: jecxz done", 0xE3, 17 + size + 12)
    asm.put("mov ebx, [edi]         ; operation", 0x8B, 0x1F)
    asm.put("mov eax, [edi+4]       ; value", 0x8B, 0x47, 4)
    asm.put("mov edx, [edi+8]       ; address", 0x8B, 0x57, 8)
    slots = asm.here() + 9
    asm.put("lea ebx, [slots+ebx*8]", 0x8D, 0x1C, 0xDD, u32(asm.base + slots))
    asm.put("jmp ebx", 0xFF, 0xE3)
    for operation in Operation:
        text, code = _X86_ACCESSES[operation]
        asm.put(f"{operation.name.lower()}: {text}", code)
        asm.put("jmp made", 0xEB, slots + size - (asm.here() + 2))
        asm.put("(padding)", b"\x90" * (slots + _SLOT * (operation + 1) - asm.here()))
    asm.put("made: mov [edi+4], eax", 0x89, 0x47, 4)
    asm.put("add edi, 16", 0x83, 0xC7, ACCESS)
    asm.put("dec ecx", 0x49)
    asm.put("jmp next", 0xE9, struct.pack("<i", following - (asm.here() + 5)))
    asm.put("done: mov [esi+8], ebp", 0x89, 0x6E, 8)
    asm.put("jmp loop", 0xE9, struct.pack("<i", loop - (asm.here() + 5)))


def _x86_guest(kind: str, asm: Code, image: bytes, fill: Range, seed: int) -> RemoteGuest:
    guest = Guest(
        "x86_64", kind, image, "\n".join(asm.lines), fill, (0, 0), seed, X86_MAILBOX + 16, X86_MAILBOX
    )
    return RemoteGuest(guest, X86_MAILBOX, 0)


def remote_firmware(*, fill: Range = (0, 0), seed: int = 0x2545F491) -> RemoteGuest:
    """A 64 KiB image in place of an x86 machine's firmware: devices are as reset left them."""
    asm = x86_flat_mode(0xF0000)
    _x86_remote(asm, fill, seed)
    reset = b"\xea\x00\x00\x00\xf0"  # jmp F000h:0000h, where the image is seen below 1 MiB
    image = bytes(asm.code).ljust(0xFFF0, b"\0") + reset.ljust(16, b"\0")
    return _x86_guest("bios", asm, image, fill, seed)


def _multiboot(fill: Range, seed: int) -> RemoteGuest:
    """Started by the firmware in flat 32-bit mode, A20 on, interrupts off (Multiboot 0.6.96, 3.2)."""
    asm = Code(X86_PROGRAM)
    magic, flags = 0x1BADB002, 1 << 16  # bit 16: the addresses below are given
    entry = X86_PROGRAM + 32
    asm.put("multiboot: magic, flags, checksum", u32(magic), u32(flags), u32(-magic - flags))
    asm.put(
        "header, load, load end (all), bss end, entry", *map(u32, (X86_PROGRAM, X86_PROGRAM, 0, 0, entry))
    )
    _x86_remote(asm, fill, seed)
    return _x86_guest("kernel", asm, bytes(asm.code), fill, seed)


# -- aarch64 ----------------------------------------------------------------------------------------------

_ARM_ACCESSES: dict[Operation, tuple[str, int]] = {
    Operation.READ8: ("ldrb w0, [x1]", 0x39400020),
    Operation.READ16: ("ldrh w0, [x1]", 0x79400020),
    Operation.READ32: ("ldr w0, [x1]", 0xB9400020),
    Operation.WRITE8: ("strb w0, [x1]", 0x39000020),
    Operation.WRITE16: ("strh w0, [x1]", 0x79000020),
    Operation.WRITE32: ("str w0, [x1]", 0xB9000020),
}
_DMB_SY = 0xD5033FBF
_EQ = 0


def _arm_jump(asm: ArmCode, text: str, target: int) -> None:
    asm.op(text, 0x14000000 | (target - asm.here()) // 4 & 0x3FFFFFF)


def _arm_remote(asm: ArmCode, fill: Range, seed: int) -> None:
    if fill[1] > fill[0]:
        arm_fill(asm, fill, PAGE, seed)
    asm.mov("MAILBOX", 20, ARM_MAILBOX)
    asm.mov("READY", 7, READY)
    asm.op("str w7, [x20, #16]", 0xB9001000 | 20 << 5 | 7)
    asm.op("movz w2, #0            ; heartbeat", 0x52800002)
    loop = asm.here()
    asm.op("loop: add w2, w2, #1", 0x11000442)
    asm.op("str w2, [x20]", 0xB9000000 | 20 << 5 | 2)
    asm.op("ldr w3, [x20, #4]      ; request", 0xB9400400 | 20 << 5 | 3)
    asm.op("ldr w4, [x20, #8]      ; answer", 0xB9400800 | 20 << 5 | 4)
    asm.op("cmp w3, w4", 0x6B04007F)
    asm.branch_if("b.eq loop", _EQ, loop)
    asm.op("dmb sy", _DMB_SY)
    asm.op("ldr w5, [x20, #12]     ; count", 0xB9400C00 | 20 << 5 | 5)
    asm.op("add x6, x20, #64", 0x91010000 | 20 << 5 | 6)
    following = asm.here()
    slots = following + 7 * 4
    made = slots + _SLOT * len(_ARM_ACCESSES)
    done = made + 4 * 4
    asm.op("next: cbz w5, done", 0x34000005 | ((done - asm.here()) // 4) << 5)
    asm.op("ldr w7, [x6]           ; operation", 0xB94000C7)
    asm.op("ldr w0, [x6, #4]       ; value", 0xB94004C0)
    asm.op("ldr x1, [x6, #8]       ; address", 0xF94004C1)
    asm.op("adr x8, slots", 0x10000008 | ((slots - asm.here()) // 4) << 5)
    asm.op("add x8, x8, x7, lsl #3", 0x8B070D08)
    asm.op("br x8", 0xD61F0100)
    for operation, (text, word) in _ARM_ACCESSES.items():
        asm.op(f"{operation.name.lower()}: {text}", word)
        _arm_jump(asm, "b made", made)
    asm.op("made: str w0, [x6, #4]", 0xB90004C0)
    asm.op("add x6, x6, #16", 0x910040C6)
    asm.op("sub w5, w5, #1", 0x510004A5)
    _arm_jump(asm, "b next", following)
    asm.op("done: dmb sy", _DMB_SY)
    asm.op("str w3, [x20, #8]", 0xB9000800 | 20 << 5 | 3)
    _arm_jump(asm, "b loop", loop)


def remote_kernel(target: str, *, fill: Range = (0, 0), seed: int = 0x2545F491) -> RemoteGuest:
    """A kernel image: x86_64 for the firmware to boot (multiboot), aarch64 for ``-M virt`` without any."""
    if target == "x86_64":
        return _multiboot(fill, seed)
    if target != "aarch64":
        raise ValueError(f"no program for {target}")
    asm = ArmCode(ARM_PROGRAM)
    _arm_remote(asm, fill, seed)
    guest = Guest(
        target, "kernel", bytes(asm.code), "\n".join(asm.lines), fill, (0, 0), seed,
        ARM_MAILBOX + 16, ARM_MAILBOX,
    )  # fmt: skip
    return RemoteGuest(guest, ARM_MAILBOX, ARM_RAM)


# -- accesses ---------------------------------------------------------------------------------------------

_IN_MEMORY = {1: Operation.READ8, 2: Operation.READ16, 4: Operation.READ32}
_BY_PORT = {1: Operation.IN8, 2: Operation.IN16, 4: Operation.IN32}
#: from a reading operation to the writing one of the same width
_TO_WRITE = 3


def read(address: int, width: int = 4, *, port: bool = False) -> Access:
    """A load of `width` bytes, or an ``in``."""
    return Access((_BY_PORT if port else _IN_MEMORY)[width], address)


def write(address: int, value: int, width: int = 4, *, port: bool = False) -> Access:
    """A store of `width` bytes, or an ``out``."""
    return Access(Operation((_BY_PORT if port else _IN_MEMORY)[width] + _TO_WRITE), address, value)
