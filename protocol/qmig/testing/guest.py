"""Guest programs for migration tests, assembled here byte by byte: no toolchain, no operating system.

    program = firmware(fill=(1 << 20, 8 << 20), dirty=(8 << 20, 9 << 20), seed=7)  # -bios, any x86 machine
    program = boot_sector(...)                                                      # behind the firmware
    program = aarch64_image(...)                                                    # -M virt -kernel
    program.image, program.boot_arguments(folder)
    program.page(address)          # what the program writes into a filled page: to compare with
    print(program.listing)         # the assembly

Every program does the same:

1. fill: each page of ``fill`` gets 1,024 words of xorshift32 output that depend on page address and seed only
   (never a zero page, not compressible, every page different);
2. store `READY` at ``ready_address``;
3. for ever: for each page of ``dirty``, store the round number as the word at index ``round % 1024``; then
   add one to the round number at ``counter_address`` (the heartbeat) and spin ``spin`` times.

Before each of those stores the TLB entry of the page is dropped: under TCG, QEMU 5.2 and 7.2 do not reset a
TLB entry's "already dirty" mark when migration reads the dirty bitmap, so a page whose entry stays hot would
be tracked once and then never again, and the destination would get stale pages. 10.0 and 11.1 do not need it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096
READY = 0x600DF111
#: Multiplier that spreads page addresses over 32 bits (golden ratio).
SPREAD = 0x9E3779B1
#: x86: below the boot sector's load address, above the BIOS data area.
X86_READY_ADDRESS = 0x7000
X86_COUNTER_ADDRESS = 0x7004
ARM_RAM = 0x40000000
ARM_READY_ADDRESS = ARM_RAM + 0x100000
ARM_COUNTER_ADDRESS = ARM_RAM + 0x100004

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest program. Addresses are guest-physical; ranges are [start, end)."""

    target: str
    #: ``bios``, ``boot`` or ``kernel``: how QEMU is told to run it
    kind: str
    image: bytes
    listing: str
    fill: Range
    dirty: Range
    seed: int
    ready_address: int
    counter_address: int
    ready: int = READY

    def boot_arguments(self, folder: Path) -> list[str]:
        """Write the image into `folder` and return the QEMU arguments that run it."""
        path = folder / f"guest-{self.kind}.bin"
        path.write_bytes(self.image)
        if self.kind == "boot":
            with path.open("r+b") as disk:
                disk.truncate(1 << 20)  # the firmware boots no disk of one sector from AHCI
            return ["-drive", f"file={path},format=raw,if=ide,snapshot=off,readonly=off"]
        return [f"-{self.kind}", str(path)]

    def page(self, address: int) -> bytes:
        """The content of the filled page at `address`."""
        state = ((address * SPREAD) & 0xFFFFFFFF) ^ self.seed | 1
        words = []
        for _ in range(PAGE // 4):
            state ^= state << 13 & 0xFFFFFFFF
            state ^= state >> 17
            state ^= state << 5 & 0xFFFFFFFF
            words.append(state)
        return struct.pack("<1024I", *words)


def _checked(name: str, value: Range, low: int, high: int) -> Range:
    start, end = value
    if start % PAGE or end % PAGE or start > end or (start < end and not low <= start < end <= high):
        raise ValueError(f"{name} must be whole pages inside {low:#x}-{high:#x}, not {start:#x}-{end:#x}")
    return value


class Code:
    """Bytes and their assembly, line by line."""

    def __init__(self, base: int) -> None:
        self.base, self.code, self.lines = base, bytearray(), list[str]()

    def here(self) -> int:
        return len(self.code)

    def put(self, text: str, *parts: int | bytes) -> None:
        """One instruction: single bytes, or longer pieces."""
        data = b"".join(part if isinstance(part, bytes) else bytes([part]) for part in parts)
        self.lines.append(f"{self.base + len(self.code):#010x}  {data.hex(' '):<32} {text}")
        self.code += data


def u32(value: int) -> bytes:
    """Little-endian, modulo 2**32."""
    return struct.pack("<I", value & 0xFFFFFFFF)


# -- x86 --------------------------------------------------------------------------------------------------


def x86_flat_mode(base: int) -> Code:
    """16-bit entry at linear address `base`: A20 on, flat 32-bit protected mode."""
    asm = Code(base)
    asm.put("cli", 0xFA)
    asm.put("cld", 0xFC)
    asm.put("in al, 92h", 0xE4, 0x92)
    asm.put("or al, 2", 0x0C, 0x02)
    asm.put("out 92h, al            ; A20 on", 0xE6, 0x92)
    after_jump = asm.here() + 7 + 3 + 2 + 3 + 8  # the instructions below
    table = after_jump + (-after_jump) % 8
    pointer, entry = table + 24, table + 24 + 6
    # The segment base is `base & ~0xffff` in firmware (CS = F000h) and 0 in a boot sector (CS = 0).
    asm.put("o32 lgdt [cs:pointer]", b"\x2e\x66\x0f\x01\x16", struct.pack("<H", (base + pointer) & 0xFFFF))
    asm.put("mov eax, cr0", 0x0F, 0x20, 0xC0)
    asm.put("or al, 1", 0x0C, 0x01)
    asm.put("mov cr0, eax", 0x0F, 0x22, 0xC0)
    asm.put("jmp dword 08h:entry", 0x66, 0xEA, u32(base + entry), 0x08, 0x00)
    asm.put("(padding)", bytes(table - asm.here()))
    # Descriptors with the accessed bit set: the processor must not write to a table that lies in ROM.
    asm.put("gdt: null", bytes(8))
    asm.put("gdt: 08h code, flat", struct.pack("<Q", 0x00CF9B000000FFFF))
    asm.put("gdt: 10h data, flat", struct.pack("<Q", 0x00CF93000000FFFF))
    asm.put("pointer: limit, base", struct.pack("<HI", 23, base + table))
    asm.put("entry: mov ax, 10h", 0x66, 0xB8, 0x10, 0x00)
    asm.put("mov ds, ax", 0x8E, 0xD8)
    asm.put("mov es, ax", 0x8E, 0xC0)
    asm.put("mov ss, ax", 0x8E, 0xD0)
    return asm


def x86_back(asm: Code, text: str, opcode: int, target: int) -> None:
    """A jump of two bytes."""
    asm.put(text, opcode, struct.pack("<b", target - (asm.here() + 2)))


def x86_fill(asm: Code, fill: Range, fill_step: int, seed: int) -> None:
    """Step 1 of every program."""
    if fill[1] > fill[0]:
        asm.put("mov edi, fill_start", 0xBF, u32(fill[0]))
        page = asm.here()
        asm.put("page: imul eax, edi, SPREAD", 0x69, 0xC7, u32(SPREAD))
        asm.put("xor eax, seed", 0x35, u32(seed))
        asm.put("or eax, 1              ; xorshift must not start at 0", 0x83, 0xC8, 0x01)
        asm.put("mov ecx, 1024", 0xB9, u32(1024))
        word = asm.here()
        for text, shift in (("shl edx, 13", b"\xc1\xe2\x0d"), ("shr edx, 17", b"\xc1\xea\x11"),
                            ("shl edx, 5", b"\xc1\xe2\x05")):  # fmt: skip
            asm.put("mov edx, eax", 0x89, 0xC2)
            asm.put(text, shift)
            asm.put("xor eax, edx", 0x31, 0xD0)
        asm.put("stosd", 0xAB)
        x86_back(asm, "loop word", 0xE2, word)
        asm.put("add edi, fill_step - 4096", 0x81, 0xC7, u32(fill_step - PAGE))
        asm.put("cmp edi, fill_end", 0x81, 0xFF, u32(fill[1]))
        x86_back(asm, "jb page", 0x72, page)


def _x86_program(asm: Code, fill: Range, fill_step: int, dirty: Range, spin: int, seed: int) -> None:
    x86_fill(asm, fill, fill_step, seed)
    asm.put("mov dword [READY_ADDRESS], READY", 0xC7, 0x05, u32(X86_READY_ADDRESS), u32(READY))
    asm.put("xor ebx, ebx           ; round", 0x31, 0xDB)
    again = asm.here()
    if dirty[1] > dirty[0]:
        asm.put("round: mov ebp, ebx", 0x89, 0xDD)
        asm.put("and ebp, 1023", 0x81, 0xE5, u32(1023))
        asm.put("mov edi, dirty_start", 0xBF, u32(dirty[0]))
        store = asm.here()
        asm.put("store: invlpg [edi]", 0x0F, 0x01, 0x3F)
        asm.put("mov [edi + ebp*4], ebx", 0x89, 0x1C, 0xAF)
        asm.put("add edi, 4096", 0x81, 0xC7, u32(PAGE))
        asm.put("cmp edi, dirty_end", 0x81, 0xFF, u32(dirty[1]))
        x86_back(asm, "jb store", 0x72, store)
    asm.put("inc ebx", 0x43)
    asm.put("invlpg [COUNTER_ADDRESS]", 0x0F, 0x01, 0x3D, u32(X86_COUNTER_ADDRESS))
    asm.put("mov [COUNTER_ADDRESS], ebx", 0x89, 0x1D, u32(X86_COUNTER_ADDRESS))
    asm.put("mov ecx, spin", 0xB9, u32(spin))
    wait = asm.here()
    asm.put("wait: pause", 0xF3, 0x90)
    x86_back(asm, "loop wait", 0xE2, wait)
    asm.put("jmp round", 0xE9, struct.pack("<i", again - (asm.here() + 5)))


def _x86(kind: str, base: int, fill: Range, fill_step: int, dirty: Range, spin: int, seed: int) -> Guest:
    # Below 2 GiB RAM is in one piece on every x86 machine type; the first MiB is not ours.
    _checked("fill", fill, 1 << 20, 2 << 30)
    _checked("dirty", dirty, 1 << 20, 2 << 30)
    if fill_step < PAGE or fill_step % PAGE or fill[1] > (2 << 30) - fill_step:
        raise ValueError(f"fill_step {fill_step} must be whole pages")
    if not 1 <= spin < 1 << 32 or not 0 <= seed < 1 << 32:
        raise ValueError("spin and seed must fit 32 bits, and spin be at least 1")
    asm = x86_flat_mode(base)
    _x86_program(asm, fill, fill_step, dirty, spin, seed)
    if kind == "boot":
        if asm.here() > 510:
            raise ValueError("the program does not fit a boot sector")
        image = bytes(asm.code).ljust(510, b"\0") + b"\x55\xaa"
    else:
        reset = b"\xea\x00\x00\x00\xf0"  # jmp F000h:0000h, where the image is seen below 1 MiB
        image = bytes(asm.code).ljust(0xFFF0, b"\0") + reset.ljust(16, b"\0")
    return Guest(
        "x86_64", kind, image, "\n".join(asm.lines), fill, dirty, seed, X86_READY_ADDRESS, X86_COUNTER_ADDRESS
    )


def firmware(
    *,
    fill: Range = (0, 0),
    dirty: Range = (0, 0),
    fill_step: int = PAGE,
    spin: int = 20_000,
    seed: int = 0x2545F491,
) -> Guest:
    """A 64 KiB image that takes the place of the firmware and runs from the reset vector.

    ``fill_step`` of 8192 fills every other page (the rest stays zero).
    """
    return _x86("bios", 0xF0000, fill, fill_step, dirty, spin, seed)


def boot_sector(
    *,
    fill: Range = (0, 0),
    dirty: Range = (0, 0),
    fill_step: int = PAGE,
    spin: int = 20_000,
    seed: int = 0x2545F491,
) -> Guest:
    """A 512-byte disk that the machine's usual firmware boots."""
    return _x86("boot", 0x7C00, fill, fill_step, dirty, spin, seed)


# -- aarch64 ----------------------------------------------------------------------------------------------


class ArmCode(Code):
    """As `Code`, one 32-bit word at a time."""

    def op(self, text: str, word: int) -> None:
        self.put(text, u32(word))

    def mov(self, text: str, register: int, value: int) -> None:
        """A 32-bit constant, in two instructions."""
        self.op(f"movz w{register}, {text} & 0xffff", 0x52800000 | (value & 0xFFFF) << 5 | register)
        self.op(f"movk w{register}, {text} >> 16, lsl 16", 0x72A00000 | (value >> 16) << 5 | register)

    def branch_if(self, text: str, condition: int, target: int) -> None:
        self.op(text, 0x54000000 | ((target - self.here()) // 4 & 0x7FFFF) << 5 | condition)


_NE, _LO = 1, 3
_TLBI_VMALLE1 = 0xD508871F


def arm_fill(asm: ArmCode, fill: Range, fill_step: int, seed: int) -> None:
    """Step 1 of every program."""
    asm.mov("fill_start", 0, fill[0])
    asm.mov("fill_end", 1, fill[1])
    asm.mov("SPREAD", 9, SPREAD)
    asm.mov("seed", 10, seed)
    asm.mov("(fill_step - 4096)", 11, fill_step - PAGE)
    page = asm.here()
    asm.op("page: mul w4, w0, w9", 0x1B007C00 | 9 << 16 | 0 << 5 | 4)
    asm.op("eor w4, w4, w10", 0x4A000000 | 10 << 16 | 4 << 5 | 4)
    asm.op("orr w4, w4, #1", 0x32000000 | 4 << 5 | 4)
    asm.op("add x5, x0, #1, lsl #12", 0x91400400 | 0 << 5 | 5)
    word = asm.here()
    asm.op("word: eor w4, w4, w4, lsl #13", 0x4A000000 | 4 << 16 | 13 << 10 | 4 << 5 | 4)
    asm.op("eor w4, w4, w4, lsr #17", 0x4A400000 | 4 << 16 | 17 << 10 | 4 << 5 | 4)
    asm.op("eor w4, w4, w4, lsl #5", 0x4A000000 | 4 << 16 | 5 << 10 | 4 << 5 | 4)
    asm.op("str w4, [x0], #4", 0xB8004400 | 0 << 5 | 4)
    asm.op("cmp x0, x5", 0xEB00001F | 5 << 16 | 0 << 5)
    asm.branch_if("b.ne word", _NE, word)
    asm.op("add x0, x0, x11", 0x8B000000 | 11 << 16 | 0 << 5 | 0)
    asm.op("cmp x0, x1", 0xEB00001F | 1 << 16 | 0 << 5)
    asm.branch_if("b.lo page", _LO, page)


def _arm_rounds(asm: ArmCode, dirty: Range, spin: int) -> None:
    asm.mov("READY_ADDRESS", 6, ARM_READY_ADDRESS)
    asm.mov("READY", 7, READY)
    asm.op("str w7, [x6]", 0xB9000000 | 6 << 5 | 7)
    asm.mov("COUNTER_ADDRESS", 8, ARM_COUNTER_ADDRESS)
    asm.mov("dirty_start", 13, dirty[0])
    asm.mov("dirty_end", 14, dirty[1])
    asm.op("movz w2, #0            ; round", 0x52800000 | 2)
    again = asm.here()
    asm.op("round: and w12, w2, #1023", 0x12000000 | 9 << 10 | 2 << 5 | 12)
    if dirty[1] > dirty[0]:
        asm.op("add x0, x13, #0", 0x91000000 | 13 << 5 | 0)
        store = asm.here()
        asm.op("store: tlbi vmalle1", _TLBI_VMALLE1)
        asm.op("str w2, [x0, x12, lsl #2]", 0xB8207800 | 12 << 16 | 0 << 5 | 2)
        asm.op("add x0, x0, #1, lsl #12", 0x91400400 | 0 << 5 | 0)
        asm.op("cmp x0, x14", 0xEB00001F | 14 << 16 | 0 << 5)
        asm.branch_if("b.lo store", _LO, store)
    asm.op("add w2, w2, #1", 0x11000400 | 2 << 5 | 2)
    asm.op("tlbi vmalle1", _TLBI_VMALLE1)
    asm.op("str w2, [x8]", 0xB9000000 | 8 << 5 | 2)
    asm.mov("spin", 15, spin)
    wait = asm.here()
    asm.op("wait: subs x15, x15, #1", 0xF1000400 | 15 << 5 | 15)
    asm.branch_if("b.ne wait", _NE, wait)
    asm.op("b round", 0x14000000 | ((again - asm.here()) // 4 & 0x3FFFFFF))


def aarch64_image(
    *,
    fill: Range = (0, 0),
    dirty: Range = (0, 0),
    fill_step: int = PAGE,
    spin: int = 20_000,
    seed: int = 0x2545F491,
) -> Guest:
    """A raw kernel for ``-M virt`` (one CPU, MMU off).

    RAM begins at `ARM_RAM`; its first 2 MiB are the program's own. ``fill_step`` as in `firmware`.
    """
    _checked("fill", fill, ARM_RAM + (2 << 20), 0xC0000000)
    _checked("dirty", dirty, ARM_RAM + (2 << 20), 0xC0000000)
    if fill_step < PAGE or fill_step % PAGE or fill[1] > 0xC0000000 - fill_step:
        raise ValueError(f"fill_step {fill_step} must be whole pages")
    if not 1 <= spin < 1 << 32 or not 0 <= seed < 1 << 32:
        raise ValueError("spin and seed must fit 32 bits, and spin be at least 1")
    asm = ArmCode(ARM_RAM + 0x80000)
    if fill[1] > fill[0]:
        arm_fill(asm, fill, fill_step, seed)
    _arm_rounds(asm, dirty, spin)
    return Guest(
        "aarch64", "kernel", bytes(asm.code), "\n".join(asm.lines), fill, dirty, seed,
        ARM_READY_ADDRESS, ARM_COUNTER_ADDRESS,
    )  # fmt: skip
