"""The guest programs: their bytes, and what they do on real builds."""

from pathlib import Path

import pytest

from qmig.builds import Qemu
from qmig.peers.qemu import QemuProcess, start_qemu
from qmig.testing.guest import ARM_RAM, PAGE, READY, Guest, aarch64_image, boot_sector, firmware

MIB = 1 << 20
X86 = ["-accel", "tcg", "-m", "16M", "-nodefaults"]


def test_images_have_the_shape_that_qemu_boots() -> None:
    bios = firmware(fill=(MIB, 2 * MIB), dirty=(2 * MIB, 3 * MIB))
    assert len(bios.image) == 0x10000
    assert bios.image[0xFFF0:0xFFF5] == bytes.fromhex("ea000000f0")
    boot = boot_sector(fill=(MIB, 2 * MIB), dirty=(2 * MIB, 3 * MIB))
    assert len(boot.image) == 512
    assert boot.image[-2:] == b"\x55\xaa"
    arm = aarch64_image(fill=(ARM_RAM + 2 * MIB, ARM_RAM + 3 * MIB))
    assert len(arm.image) % 4 == 0


def test_the_listing_shows_every_byte() -> None:
    for program in (
        firmware(fill=(MIB, 2 * MIB)),
        aarch64_image(fill=(ARM_RAM + 2 * MIB, ARM_RAM + 3 * MIB)),
    ):
        shown = b""
        for line in program.listing.splitlines():
            shown += bytes.fromhex(line[12:].partition("  ")[0])
        assert program.image.startswith(shown)
        assert not any(program.image[len(shown) : 0xFFF0])


def test_filled_pages_differ_and_do_not_compress() -> None:
    import zlib

    program = firmware(fill=(MIB, 2 * MIB), seed=5)
    pages = {program.page(address) for address in range(MIB, 2 * MIB, PAGE)}
    assert len(pages) == 256
    assert all(len(zlib.compress(page)) > PAGE for page in pages)
    assert firmware(fill=(MIB, 2 * MIB), seed=6).page(MIB) not in pages


@pytest.mark.parametrize(
    "wrong",
    [
        {"fill": (0, MIB)},
        {"fill": (MIB, MIB + 1)},
        {"dirty": (2 * MIB, MIB)},
        {"dirty": (MIB, 3 << 30)},
        {"fill_step": 100},
        {"spin": 0},
        {"seed": 1 << 32},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|32 bits"):
        firmware(**wrong)  # type: ignore[arg-type]


def test_arm_parameters_that_cannot_work_are_refused() -> None:
    for wrong in ({"fill": (MIB, 2 * MIB)}, {"spin": 0}, {"fill_step": PAGE + 1}):
        with pytest.raises(ValueError, match=r"must|32 bits"):
            aarch64_image(**wrong)


async def _check_fill(vm: QemuProcess, program: Guest, step: int = PAGE) -> None:
    start, end = program.fill
    memory = await vm.read_physical(start, end - start)
    for address in range(start, end, PAGE):
        page = memory[address - start : address - start + PAGE]
        assert page == (program.page(address) if (address - start) % step == 0 else bytes(PAGE)), hex(address)


async def _check_life(vm: QemuProcess, program: Guest) -> None:
    await vm.wait_guest(program, rounds=2)
    assert await vm.read_word(program.ready_address) == READY
    await _check_fill(vm, program)
    await vm.wait_guest(program, rounds=2)
    await vm.execute("stop")
    # Round r is stored as word r % 1024 of every page; the round being written may be anywhere between.
    done = await vm.read_word(program.counter_address) - 1
    for address in range(*program.dirty, PAGE):
        assert await vm.read_word(address + done % 1024 * 4) == done


@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
async def test_firmware(qemu: Qemu, machine: str, tmp_path: Path) -> None:
    program = firmware(fill=(MIB, 2 * MIB), dirty=(3 * MIB, 3 * MIB + 8 * PAGE), seed=0xC0FFEE)
    async with start_qemu(qemu.binary, ["-M", machine, *X86], program=program, folder=tmp_path) as vm:
        await _check_life(vm, program)


async def test_boot_sector(qemu: Qemu, tmp_path: Path) -> None:
    program = boot_sector(fill=(MIB, 2 * MIB), dirty=(3 * MIB, 3 * MIB + 8 * PAGE))
    async with start_qemu(qemu.binary, ["-M", "pc", *X86], program=program, folder=tmp_path) as vm:
        await _check_life(vm, program)


async def test_every_other_page_stays_zero(qemu: Qemu, tmp_path: Path) -> None:
    program = firmware(fill=(MIB, 2 * MIB), fill_step=2 * PAGE)
    async with start_qemu(qemu.binary, ["-M", "q35", *X86], program=program, folder=tmp_path) as vm:
        await vm.wait_guest(program)
        await _check_fill(vm, program, step=2 * PAGE)


async def test_aarch64(qemu_arm: Qemu, tmp_path: Path) -> None:
    program = aarch64_image(
        fill=(ARM_RAM + 2 * MIB, ARM_RAM + 3 * MIB), dirty=(ARM_RAM + 4 * MIB, ARM_RAM + 4 * MIB + 8 * PAGE)
    )
    arguments = ["-M", "virt", "-cpu", "cortex-a57", *X86]
    async with start_qemu(qemu_arm.binary, arguments, program=program, folder=tmp_path) as vm:
        await _check_life(vm, program)


async def _check_stores_reach_the_destination(
    build: Qemu, machine: list[str], program: Guest, block: str, folder: Path
) -> None:
    """The reason for dropping TLB entries: while the guest goes on writing, nothing it stores is lost."""
    incoming = [*machine, "-incoming", "defer", "-S"]
    async with (
        start_qemu(build.binary, machine, program=program, folder=folder, name="source") as source,
        start_qemu(build.binary, incoming, program=program, folder=folder, name="destination") as destination,
    ):
        await source.wait_guest(program, rounds=2)
        uri = f"unix:{source.folder}/m.sock"
        await destination.incoming(uri)
        # Slow enough for several rounds, so that pages are sent again after the guest has written to them.
        await source.set_parameters({"max-bandwidth": 40 * MIB, "downtime-limit": 10})
        await source.migrate(uri)
        await source.wait_guest(program, rounds=3)
        await source.set_parameters({"max-bandwidth": 1 << 40, "downtime-limit": 2000})
        outcome = await source.wait_migration()
        assert outcome.status == "completed", outcome.error
        assert (await destination.wait_migration()).status == "completed"
        covered = await source.save_ram_block(block, folder / "a")
        assert covered
        assert await destination.save_ram_block(block, folder / "b") == covered
        assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
        await destination.execute("cont")
        await destination.wait_guest(program, rounds=2)


async def test_stores_reach_the_destination(qemu: Qemu, tmp_path: Path) -> None:
    program = firmware(fill=(MIB, 4 * MIB), dirty=(4 * MIB, 6 * MIB))
    await _check_stores_reach_the_destination(qemu, ["-M", "q35", *X86], program, "pc.ram", tmp_path)


async def test_stores_of_aarch64_reach_the_destination(qemu_arm: Qemu, tmp_path: Path) -> None:
    ram = ARM_RAM
    program = aarch64_image(fill=(ram + 2 * MIB, ram + 4 * MIB), dirty=(ram + 4 * MIB, ram + 6 * MIB))
    machine = ["-M", "virt", "-cpu", "cortex-a57", *X86]
    await _check_stores_reach_the_destination(qemu_arm, machine, program, "mach-virt.ram", tmp_path)
