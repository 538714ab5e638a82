"""Wrong fields out of declarations: names that last, and bytes that differ in that field only."""

from __future__ import annotations

from qmig._wire import Record
from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import sections as sec
from qmig.legacy.mappedram import MappedRamHeader
from qmig.legacy.multifd import MultifdHello, MultifdPacket
from qmig.legacy.ram import RamEos, RamZeroPage
from qmig.testing.channels import packet
from qmig.testing.variants import parts, variant, variant_names

RECORDS: list[Record] = [
    hdr.FileHeader(version=3),
    hdr.Configuration(machine="pc-q35-10.0"),
    hdr.ConfigurationUuid(uuid=bytes(range(16))),
    hdr.ConfigurationCapabilities(capabilities=("mapped-ram",)),
    sec.SectionFooter(section_id=7),
    sec.SectionFull(section_id=7, idstr="timer", instance_id=0, version_id=2),
    sec.VmDescription(json=b"{}"),
    cmd.PostcopyRamDiscard(length=9 + 32, block="pc.ram", ranges=((0, 4096), (8192, 4096))),
    RamEos(),
    RamZeroPage(word=2, block="pc.ram", fill=0),
    MappedRamHeader(version=1, page_size=4096, bitmap_offset=100, pages_offset=1 << 20),
    MultifdHello(uuid=bytes(16), id=1, unused1=bytes(7), unused2=bytes(32)),
]


def test_the_parts_are_the_record() -> None:
    for record in RECORDS:
        assert b"".join(raw for _, raw in parts(record)) == record.encode()


def test_each_variant_differs_in_its_field_only() -> None:
    for record in RECORDS:
        names = list(variant_names(type(record)))
        assert len(set(names)) == len(names)
        seen = {name: variant(record, name) for name in names}
        assert any(seen.values())
        for name, wrong in seen.items():
            field = name.partition(".")[0]
            whole = record.encode()
            assert wrong != whole
            before = b"".join(raw for own, raw in parts(record) if own != field)
            if wrong is not None:
                at = sum(len(raw) for _, raw in parts(record)[: [n for n, _ in parts(record)].index(field)])
                rest = len(before) - at
                assert wrong[:at] + wrong[len(wrong) - rest :] == before, name


def test_what_names_stand_for() -> None:
    footer = sec.SectionFooter(section_id=7)
    assert variant(footer, "section_id.plus-1") == b"\x7e\0\0\0\x08"
    assert variant(footer, "section_id.sign-bit") == b"\x7e\x80\0\0\0"
    assert variant(footer, "section_type.max") == b"\xff\0\0\0\x07"
    machine = hdr.Configuration(machine="pc")
    assert variant(machine, "machine.length-max") == b"\x07\xff\xff\xff\xffpc"
    assert variant(machine, "machine.empty") == b"\x07\0\0\0\0"
    assert variant(machine, "machine.other") == b"\x07\0\0\0\x02qc"
    full = sec.SectionFull(section_id=1, idstr="a", instance_id=0, version_id=0)
    assert variant(full, "idstr.longest") == b"\4\0\0\0\1\xff" + b"a".ljust(255, b"A") + bytes(8)
    eos = RamEos()
    assert variant(eos, "word.bit-3") == (0x18).to_bytes(8, "big")
    discard = cmd.PostcopyRamDiscard(length=25, block="pc.ram", ranges=((0, 4096),))
    assert variant(discard, "ranges.empty") == discard.encode()[:-16]
    assert variant(discard, "ranges.half") == discard.encode() + bytes(8)
    assert variant(discard, "ranges.second-double") == discard.encode()[:-8] + (8192).to_bytes(8, "big")
    two = cmd.PostcopyRamDiscard(length=41, block="pc.ram", ranges=((0, 4096), (8192, 4096)))
    assert variant(two, "ranges.half") == two.encode()[:-8]


def test_a_field_that_is_not_there_has_no_variants() -> None:
    assert variant(RamZeroPage(word=0x22, fill=0), "block.other") is None
    assert (
        variant(sec.SectionFull(section_id=1, idstr="", instance_id=0, version_id=0), "idstr.other") is None
    )
    assert variant(sec.SectionFooter(section_id=1), "section_id.one") is None


def test_offsets_and_payload_of_a_multifd_packet() -> None:
    raw = packet(normal=[4096], payload=bytes(4096))
    record = MultifdPacket(
        flags=0,
        pages_alloc=128,
        normal_pages=1,
        next_packet_size=4096,
        packet_num=0,
        zero_pages=0,
        unused=bytes(28),
        ramblock=b"pc.ram".ljust(256, b"\0"),
        page_size=4096,
        offsets=raw[320:1344],
        payload=raw[1344:],
    )
    assert variant(record, "offsets.max") == raw[:320] + b"\xff" * 8 + raw[328:]
    assert variant(record, "payload.short") == raw[:-1]
    assert variant(record, "ramblock.ones") == raw[:64] + b"\xff" * 256 + raw[320:]
