"""Which device, section and field a QEMU's words name."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator

from qmig.peers.qemu import QemuDied
from qmig_conformance.matrix.model import Blame, Placed

#: A warning is no reason.
_NOISE = ("warning:", "info:")
#: Lines of a message that are kept, the newest ones.
_LINES = 8

#: section names, as QEMU's messages quote them
_SECTIONS = tuple(
    map(
        re.compile,
        (
            (
                r"error while loading state "
                r"(?:for instance \S+ of device '(?P<s>[^']+)'|section id \d+\((?P<s2>[^)]+)\))"
            ),
            r"Unknown (?:savevm section or instance|section or instance) '(?P<s>[^']+)'",
            r"State blocked by non-migratable device '(?P<s>[^']+)'",
            r"Missing section footer for (?P<s>\S+)",
            r"(?:savevm: )?unsupported version \d+ for '(?P<s>[^']+)'",
            r"(?:Length mismatch|Size mismatch|RAM block|Unknown ramblock) ?:? ?\"?(?P<s>[^\s\"]+?)[:\",]",
        ),
    )
)
#: fields, as QEMU's messages name them: `vmsd:field`
_FIELDS = tuple(
    map(
        re.compile,
        (
            r"Failed to load element of type (?P<f>\S+ for [^\s:]+)",
            r"Failed to load (?P<f>[^\s:]+:[^\s:]+)",
            r"Input validation failed: (?P<f>\S+)",
            r"(?P<f>VQ \d+ (?:vring\.num|size|address)\b[^,:]*)",
            r"(?P<f>\S+: incoming version_id \d+ is too (?:new|old)[^\n]*)",
            r"(?P<f>Length mismatch|Size mismatch|Unknown ramblock)",
            r"get_pci_config_device: (?P<f>Bad config data: i=0x[0-9a-f]+[^\n]*)",
            r"(?P<f>Features 0x\S+ unsupported[^\n]*)",
        ),
    )
)


def words_of(death: QemuDied) -> str:
    """How a QEMU ended and what it wrote last."""
    said = last_words(death.output)
    if death.returncode < 0:
        return f"killed by {signal.Signals(-death.returncode).name}\n{said}".strip()
    return said or str(death)


def last_words(output: str) -> str:
    """What a QEMU wrote, without its program's name and without warnings."""
    lines = []
    for line in output.splitlines():
        head, colon, rest = line.partition(": ")
        text = rest if colon and head.startswith("qemu-system-") else line
        if text.strip() and not any(noise in line for noise in _NOISE):
            lines.append(text.strip())
    return "\n".join(lines[-_LINES:])


def named_by(words: str, group: Iterable[Placed]) -> frozenset[str]:
    """Ids of the devices that a message names: by id, or by the place of a section on the first PCI bus."""
    return frozenset(placed.id for placed in group if any(mark.search(words) for mark in _marks(placed)))


def _marks(placed: Placed) -> Iterator[re.Pattern[str]]:
    yield re.compile(rf"(?:=|'){re.escape(placed.id)}(?![0-9])")
    yield re.compile(rf"0000:00:{placed.slot:02x}\.0(?=[/:'])")


def blame(words: str) -> Blame:
    """Section and field that a message names; the line that names the field, or else the section."""
    section, section_line = _first(words, _SECTIONS)
    field, field_line = _first(words, _FIELDS)
    line = field_line or section_line or " ".join(words.splitlines()[:2])
    return Blame(section=section, field=field, words=line)


def _first(words: str, patterns: Iterable[re.Pattern[str]]) -> tuple[str, str]:
    lines = words.splitlines()
    for pattern in patterns:
        for line in lines:
            if match := pattern.search(line):
                return next(text for text in match.groups() if text), line
    return "", ""
