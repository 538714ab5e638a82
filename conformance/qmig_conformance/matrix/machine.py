"""The command line of a machine: the same for both sides of a cell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from qmig.testing.guest import ARM_RAM
from qmig.testing.remote import RemoteGuest, remote_firmware, remote_kernel
from qmig_conformance.matrix.boards import MEMORY
from qmig_conformance.matrix.model import Board, Group, Placed, State

#: What the guest writes into its memory: behind its own code, mailbox and the drivers' pages.
_FILL = (20 << 20, 21 << 20)


def guest_of(board: Board, state: State) -> RemoteGuest:
    """The program that the machine runs."""
    low, high = _FILL
    if board.target == "aarch64":
        return remote_kernel("aarch64", fill=(ARM_RAM + low, ARM_RAM + high))
    if state is State.INITIALISED and board.firmware:
        return remote_kernel("x86_64", fill=_FILL)
    return remote_firmware(fill=_FILL)


def arguments(board: Board, machine: str, state: State, group: Group, ram: Path) -> list[str]:
    """Everything but the guest; `ram` is the file that is the guest's RAM."""
    extra = group[0].device if group else None
    options = [machine, "accel=tcg", "memory-backend=ram"]
    memory = f"{MEMORY}M"
    if extra is not None and extra.machine:
        options.append(extra.machine)
    if extra is not None and extra.memory:
        memory += f",{extra.memory}"
    return [
        *("-machine", ",".join(options), "-m", memory, "-nodefaults", "-S"),
        *board.arguments,
        *("-object", f"memory-backend-file,id=ram,size={MEMORY}M,mem-path={ram},share=on"),
        *(word for placed in group for word in _words(placed, state)),
    ]


def _words(placed: Placed, state: State) -> list[str]:
    known = {
        "id": placed.id,
        "slot": f"{placed.slot:x}",
        "number": str(placed.number + 1),
        "bus": str(32 + 7 * placed.slot),
    }
    lines = [*placed.device.arguments, *placed.device.only.get(state, ())]
    return [word for line in lines for word in line.format(**known).split(" ")]


def shown(binary: Path, words: Sequence[str]) -> str:
    """One command, as a shell takes it."""
    return shlex.join([str(binary), *words])
