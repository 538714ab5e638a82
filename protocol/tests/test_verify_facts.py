"""What `verify` knows of the source, how attempts and cuts are judged, what is kept in memory."""

from __future__ import annotations

import pytest

from qmig.errors import LimitExceeded, RemoteProtocolError, TruncatedStream, UnsupportedFeature
from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import multifd as mfd
from qmig.legacy import ram
from qmig.legacy import returnpath as rp
from qmig.legacy import sections as sec
from qmig.legacy.mappedram import MappedRamHeader
from qmig.legacy.verify import (
    KEPT,
    RULES,
    Facts,
    Known,
    Report,
    Severity,
    Status,
    Verifier,
    all_rules,
    version_of,
)
from qmig.legacy.verify import coverage as coverage_module
from qmig.legacy.verify import description as description_module
from qmig.legacy.verify import returnpath as returnpath_module
from qmig.legacy.verify import sections as sections_module
from qmig.legacy.verify.facts import machine_version
from qmig.legacy.verify.rules import (
    ALWAYS,
    When,
    before,
    both,
    capability,
    either,
    migration_property,
    seen,
    since,
)
from qmig.testing import migrations as m
from qmig.testing.migrations import Story


def check(story: Story, known: Known | None = None) -> Report:
    verifier = Verifier(known or story.known)
    for channel, event in story:
        verifier.check(channel, event)
    return verifier.finish()


def statuses(report: Report) -> dict[str, Status]:
    return {row.requirement: row.status for row in report.outcomes}


META = {
    "machine": "pc-q35-10.0",
    "capabilities": {"multifd": True, "xbzrle": False},
    "parameters_seen": {"multifd-channels": 2},
    "source": {
        "version": "10.0.13",
        "argv": [
            "-M", "q35,suppress-vmdesc=on", "-global", "migration.send-section-footer=off",
            "-global", "migration.send-configuration=on", "-global", "other.thing=on", "migration.x=on",
        ],
    },
}  # fmt: skip


def test_known_from_a_recordings_meta() -> None:
    known = Known.from_meta(META)
    assert known.version == (10, 0)
    assert known.machine == "pc-q35-10.0"
    assert known.capabilities == frozenset({"multifd"})
    assert known.parameters == {"multifd-channels": 2}
    assert known.properties == {"send-section-footer": False, "send-configuration": True}
    assert known.suppress_vmdesc is True


@pytest.mark.parametrize(
    "meta",
    [{}, {"source": 7, "capabilities": [], "parameters_seen": 1, "machine": 3}, {"source": {"argv": "x"}}],
)
def test_what_a_meta_lacks_stays_unknown(meta: dict[str, object]) -> None:
    assert Known.from_meta(meta) == Known()


@pytest.mark.parametrize(
    ("text", "version"), [("10.0.13", (10, 0)), ("5.2", (5, 2)), ("", None), ("x", None), ("7", None)]
)
def test_versions(text: str, version: tuple[int, int] | None) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("pc-i440fx-11.1", (11, 1)), ("virt-5.2", (5, 2)), ("pc-q35-2.12", (2, 12)), ("pc-q35-2.4.1", (2, 4)),
        ("pc-q35-rhel9.2.0", None), ("microvm", None), ("none", None), ("isapc", None), (None, None),
        ("spapr-7.2-hpb", (7, 2)),
    ],
)  # fmt: skip
def test_machine_versions(name: str | None, version: tuple[int, int] | None) -> None:
    assert machine_version(name) == version


def test_the_stream_narrows_the_version_down() -> None:
    facts = Facts()
    assert facts.at_least((9, 0)) is None
    facts.since((8, 0))
    facts.since((7, 0))
    facts.until((10, 2))
    facts.until((11, 0))
    assert facts.at_least((8, 0)) is True
    assert facts.at_least((11, 0)) is False
    assert facts.at_least((9, 0)) is None


def test_a_version_that_is_given_stands() -> None:
    facts = Facts(Known(version=(7, 2)))
    facts.since((10, 0))
    facts.until((5, 2))
    assert facts.at_least((8, 0)) is False
    assert facts.at_least((7, 2)) is True


def test_capabilities_and_parameters() -> None:
    facts = Facts(Known(capabilities=frozenset({"multifd"}), parameters={"multifd-channels": 3}))
    assert facts.capability("multifd") is True
    assert facts.capability("xbzrle") is False
    assert facts.parameter("multifd-channels") == 3
    facts = Facts()
    assert facts.capability("multifd") is None
    assert facts.parameter("multifd-channels") is None
    assert facts.capability("mapped-ram") is None
    facts.validated = frozenset({"mapped-ram"})
    assert facts.capability("mapped-ram") is True
    assert facts.capability("x-ignore-shared") is False
    facts.seen.add("multifd")
    assert facts.capability("multifd") is True


@pytest.mark.parametrize(
    ("known", "machine", "value"),
    [
        (Known(), "pc-q35-10.0", None),
        (Known(properties={"send-switchover-start": False}), "pc-q35-10.0", False),
        (Known(properties={}, version=(10, 0)), "pc-q35-10.0", True),
        (Known(properties={}, version=(10, 0)), "pc-q35-9.2", False),
        (Known(properties={}, version=(10, 0)), "microvm", True),
        (Known(properties={}, version=(10, 0)), "pc-q35-rhel9.6.0", None),
        (Known(properties={}, version=(10, 0)), None, None),
        (Known(properties={}, version=(7, 2)), "pc-q35-7.2", False),
        (Known(properties={}), "microvm", None),
    ],
)
def test_properties_follow_the_machine_type(known: Known, machine: str | None, value: bool | None) -> None:
    facts = Facts(known)
    facts.machine = machine
    assert facts.machine_property("send-switchover-start") is value


def constant(text: str, value: bool | None) -> When:
    return When(text, lambda _: value)


YES, NO, UNKNOWN = constant("y", True), constant("n", False), constant("u", None)


def test_conditions() -> None:
    facts = Facts(Known(version=(10, 0), capabilities=frozenset({"multifd"}), properties={}))
    facts.machine = "pc-q35-10.0"
    assert ALWAYS.test(facts) is True
    assert since((9, 0)).test(facts) is True
    assert before((9, 0)).test(facts) is False
    assert before((9, 0)).test(Facts()) is None
    assert capability("multifd", on=True).test(facts) is True
    assert capability("multifd", on=False).test(facts) is False
    assert capability("multifd", on=False).test(Facts()) is None
    assert migration_property("send-configuration", on=True).test(facts) is True
    assert migration_property("send-configuration", on=True).test(Facts()) is None
    assert seen("eof", "whole").test(facts) is False
    assert both(YES, YES).test(facts) is True
    assert both(YES, UNKNOWN).test(facts) is None
    assert both(UNKNOWN, NO).test(facts) is False
    assert both(YES, NO).text == "y, n"
    assert either(NO, YES, UNKNOWN).test(facts) is True
    assert either(NO, UNKNOWN).test(facts) is None
    assert either(NO, NO).test(facts) is False
    assert either(NO, YES).text == "n or y"


def test_without_knowledge_rules_that_need_it_are_not_checkable() -> None:
    report = check(m.precopy(), Known())
    assert report.findings == ()
    found = statuses(report)
    assert found["LEG-SEC-022"] is Status.NOT_CHECKABLE
    assert found["LEG-SEC-034"] is Status.NOT_CHECKABLE
    assert found["LEG-CHN-010"] is Status.NOT_CHECKABLE
    assert found["LEG-MFD-022"] is Status.NOT_APPLICABLE
    assert found["LEG-PCP-012"] is Status.NOT_APPLICABLE
    assert found["LEG-SEC-023"] is Status.HELD
    assert all(
        row.reason for row in report.outcomes if row.status in (Status.NOT_CHECKABLE, Status.NOT_APPLICABLE)
    )


@pytest.mark.parametrize("base", [m.precopy, m.postcopy, m.recovery, m.multifd, m.mapped_ram, m.xbzrle])
def test_without_knowledge_a_good_migration_has_no_findings(base: object) -> None:
    story = base()  # type: ignore[operator]
    assert check(story, Known()).findings == ()


def test_many_findings_of_a_rule_are_counted_and_few_are_kept() -> None:
    story = m.precopy()
    for _ in range(20):
        story.add(story.at(sec.SectionStart), cmd.Ping(value=9))
    report = check(story)
    mine = [finding for finding in report.findings if finding.requirement == "LEG-CMD-033"]
    assert len(mine) == KEPT
    assert {row.requirement: row.count for row in report.outcomes}["LEG-CMD-033"] == 20


def cut(
    requirement: str = "LEG-SEC-020", kind: type[RemoteProtocolError] = TruncatedStream
) -> RemoteProtocolError:
    return kind("the end", requirement=requirement, offset=7, record="SectionFooter")


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        (TruncatedStream, Severity.ERROR), (RemoteProtocolError, Severity.ERROR),
        (LimitExceeded, Severity.WARNING), (UnsupportedFeature, Severity.NOTE),
    ],
)  # fmt: skip
def test_a_reader_that_gave_up_is_a_finding(kind: type[RemoteProtocolError], severity: Severity) -> None:
    verifier = Verifier()
    for channel, event in m.precopy()[:20]:
        verifier.check(channel, event)
    verifier.failed("main", cut(kind=kind))
    verifier.failed("main", cut("LEG-GEN-001", kind))
    report = verifier.finish()
    assert [(f.severity, f.channel, f.offset, f.record) for f in report.findings] == [
        (severity, "main", 7, "SectionFooter")
    ] * 2
    # What was not reached is not missed.
    assert statuses(report)["LEG-GEN-001"] is Status.BROKEN
    assert statuses(report)["LEG-SEC-017"] is Status.HELD


def test_a_companion_that_was_cut_does_not_stop_the_rest() -> None:
    story = m.precopy()
    verifier = Verifier(story.known)
    for channel, event in story.drop(story.at(ram.RamPages)):
        verifier.check(channel, event)
    verifier.failed("rp", cut("LEG-RPM-001"))
    assert {f.requirement for f in verifier.finish().findings} == {"LEG-RPM-001", "LEG-RAM-052"}


def test_a_second_attempt_is_judged_on_its_own() -> None:
    first, second = m.precopy(), m.precopy()
    verifier = Verifier(first.known)
    for channel, event in first[:20]:
        verifier.check(channel, event)
    verifier.failed("main", cut())
    for channel, event in second:
        verifier.check("main-2" if channel == "main" else "rp-2", event)
    report = verifier.finish()
    assert [(f.severity, f.channel) for f in report.findings] == [(Severity.NOTE, "main")]
    assert report.good
    assert verifier.facts.machine == "pc-q35-10.0"
    assert statuses(report)["LEG-RPM-020"] is Status.HELD


def test_a_recovered_cut_is_a_note() -> None:
    story = m.recovery()
    verifier = Verifier(story.known)
    for channel, event in story:
        verifier.check(channel, event)
    verifier.failed("main", cut())
    verifier.failed("rp", cut("LEG-RPM-001"))
    assert {f.severity for f in verifier.finish().findings} == {Severity.NOTE}


def test_a_background_snapshot_ends_no_handler() -> None:
    story = m.precopy()
    start = story.at(sec.SectionEnd)
    story.drop(start, story.at(sec.SectionFull) - start).drop(story.at(cmd.SwitchoverStart))
    story.drop(story.at(cmd.OpenReturnPath), 2)
    story[:] = [item for item in story if item[0] == "main"]
    assert check(story, m.known((10, 0), "background-snapshot")).findings == ()
    assert check(story, Known()).findings == ()
    assert [f.requirement for f in check(story, m.known((10, 0))).findings] == ["LEG-SEC-017"]


def test_colo_goes_round() -> None:
    story = m.xbzrle()
    story.add(story.at(sec.SectionPart), cmd.EnableColo())
    story.add(story.at(sec.SectionFull), *m.end())
    at = story.at(sec.EndOfFile)
    story.add(at, *m.full(2, "timer", 0, 2, bytes(16))).drop(story.at(sec.VmDescription))
    assert check(story).findings == ()


def test_xen_style_device_state_alone() -> None:
    story = Story(m.on("main", [hdr.FileHeader(version=3)], m.devices(), [sec.EndOfFile()]), Known())
    assert check(story).findings == ()


def test_the_page_size_of_the_description_needs_pages() -> None:
    events = [*m.opening("none"), *m.closing()]
    tree = {"configuration": {}, "page_size": 0, "devices": []}
    story = Story(m.on("main", events), Known()).change(-1, json=m.vmdesc(tree).json)
    assert check(story).findings == ()


def test_free_page_hints_make_coverage_not_checkable() -> None:
    story = m.precopy()
    story.change(story.at(sec.SectionFull), idstr="0000:00:03.0/virtio-balloon")
    story.drop(story.at(ram.RamPages)).drop(story.at(sec.VmDescription))
    report = check(story)
    assert statuses(report)["LEG-RAM-052"] is Status.NOT_CHECKABLE


def test_a_block_without_pages_may_be_shared() -> None:
    story = m.xbzrle()
    at = story.at(ram.RamPages, 1)
    report = check(story.drop(at), Known(version=(7, 2)))
    assert [f.requirement for f in report.findings] == ["LEG-RAM-052"]
    story.change(story.at(hdr.Configuration), machine="pc-q35-7.2")
    body = hdr.ConfigurationCapabilities(capabilities=("x-ignore-shared",))
    opening = hdr.Subsection(name="configuration/capabilities", version_id=1)
    story.add(story.at(hdr.Configuration) + 1, opening, body)
    for number in range(2):
        story.change(story.at(ram.RamBlockEntry, number), gpa=0)
    assert check(story, Known()).findings == ()


def partial(story: Story, known: Known) -> Status:
    return statuses(check(story, known))["LEG-RAM-052"]


def test_a_recording_that_lacks_a_channel_is_not_checkable() -> None:
    story = m.multifd()
    assert partial(story, story.known) is Status.HELD
    some = Story([item for item in story if item[0] != "multifd-1"], story.known)
    assert partial(some, story.known) is Status.NOT_CHECKABLE
    # The packet numbers show it, too.
    assert partial(some, Known()) is Status.NOT_CHECKABLE
    alone = Story([item for item in story if item[0] == "main"], story.known)
    assert partial(alone, Known()) is Status.NOT_CHECKABLE
    alone.add(alone.at(ram.RamEos, 1), m.pages("m0", 0, 16, zero=True), m.pages("pc.bios", 0, 2, zero=True))
    assert partial(alone, Known()) is Status.NOT_CHECKABLE
    story = m.postcopy()
    main = Story([item for item in story if item[0] != "preempt"], story.known)
    assert partial(main, Known()) is Status.NOT_CHECKABLE


def test_pages_in_any_order_are_counted() -> None:
    story = m.precopy()
    at = story.at(ram.RamPages)
    order = [(number * m.PAGE, 0) for number in (4, 5, 6, 0, 1, 2, 3, 9, 8, 7)]
    story[at] = "main", ram.RamPages.of("m0", m.PAGE, order, named=True)
    assert check(story).findings == ()


def test_too_much_ram_is_not_checkable(monkeypatch: pytest.MonkeyPatch) -> None:
    story = m.xbzrle()
    monkeypatch.setattr(coverage_module, "Budget", lambda: coverage_module_budget(0))
    report = check(story)
    assert report.findings == ()
    assert statuses(report)["LEG-RAM-052"] is Status.NOT_CHECKABLE


def coverage_module_budget(left: int) -> object:
    from qmig.legacy.pageset import Budget

    return Budget(left)


def test_a_device_that_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a description does not say is not held against the state."""
    rows: list[dict[str, object]] = [
        {"fields": 7}, {"fields": [7]}, {"fields": [{"name": "a", "type": "uint8"}]},
        {"fields": [{"name": "a", "type": "struct", "array_len": 2, "size": 3}]},
        {"fields": [{"name": "a", "type": "uint8", "array_len": -1, "size": 1}]},
        {"fields": [], "subsections": [{"vmsd_name": 7, "version": 1, "fields": []}]},
        {"fields": [], "subsections": [{"vmsd_name": "x", "version": 1 << 32, "fields": []}]},
    ]  # fmt: skip
    deep: dict[str, object] = {"vmsd_name": "x", "version": 1, "fields": []}
    for _ in range(100):
        deep = {"vmsd_name": "x", "version": 1, "fields": [], "subsections": [deep]}
    for row in [*rows, deep]:
        tree = m.description()
        tree["devices"][0] = {"name": "timer", "instance_id": 0, **row, "version": 2}
        story = m.precopy()
        story.change(story.at(sec.VmDescription), json=m.vmdesc(tree).json)
        assert check(story).findings == (), row
    # Bodies beyond the bound are measured, not kept.
    monkeypatch.setattr(description_module, "KEPT", 20)
    story = m.precopy()
    at = story.at(sec.SectionFull, idstr="0000:00:02.0/dev")
    assert check(story.change(at + 1, data=bytes(32))).findings == ()


def test_subsections_within_subsections() -> None:
    story = m.precopy()
    inner = hdr.Subsection(name="dev/extra/more", version_id=2).encode() + b"z"
    at = story.at(sec.SectionFull, idstr="0000:00:02.0/dev") + 1
    event = story[at][1]
    assert isinstance(event, sec.DeviceState)
    story.change(at, data=bytes(event.data) + inner)
    tree = m.description()
    field = {"name": "q", "type": "uint8", "size": 1}
    more = {"vmsd_name": "dev/extra/more", "version": 2, "fields": [field]}
    tree["devices"][1]["subsections"][0]["subsections"] = [more]
    story.change(story.at(sec.VmDescription), json=m.vmdesc(tree).json)
    assert check(story).findings == ()
    story.change(at, data=bytes(event.data) + inner[:-1][::-1] + b"z")
    assert [f.requirement for f in check(story).findings] == ["LEG-SEC-045"]


def test_nothing_grows_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections, PING values and names that a stream repeats without end are tracked up to a bound."""
    monkeypatch.setattr(sections_module, "TRACKED", 2)
    monkeypatch.setattr(description_module, "TRACKED", 2)
    monkeypatch.setattr(returnpath_module, "VALUES", 1)
    story = m.precopy()
    story.add(story.at(sec.SectionStart), *m.full(30, "a", 0, 1, b""), *m.full(31, "b", 0, 1, b""), *m.full(
        32, "c", 0, 1, b""))  # fmt: skip
    assert check(story).findings == ()
    # Beyond the bound a repetition is not seen, and the description not compared.
    story.add(story.at(sec.EndOfFile), *m.full(33, "globalstate", 0, 1, m.GLOBAL_STATE))
    assert check(story).findings == ()


def test_an_unknown_block_in_an_answer() -> None:
    story = m.recovery()
    at = story.at(cmd.RecvBitmap)
    report = check(story.add(at, m.recv_bitmap("none")))
    assert {f.requirement for f in report.findings} == {"LEG-PCP-040"}


def test_answers_before_anything_is_known_are_not_measured() -> None:
    events = [rp.RpReqPages(start=0, length=m.PAGE), m.request("m0", 0, m.PAGE), m.bitmap("m0")]
    report = check(Story(m.on("rp", events), Known()))
    assert {f.requirement for f in report.findings} == {"LEG-RPM-033", "LEG-RPM-035", "LEG-RPM-040"}
    entry = ram.RamBlockEntry(idstr="m0", used_length=m.PAGE)
    story = Story([*m.on("main", [entry]), *m.on("rp", [m.bitmap("m0")])], Known())
    assert {f.requirement for f in check(story).findings} == {"LEG-RPM-040"}


def test_multifd_channels_without_main_or_hello() -> None:
    packet = m.packet(1, "m0", [1])
    assert check(Story(m.on("multifd-0", [packet]), Known())).findings == ()
    hello = [m.hello(3)]
    found = check(Story(m.on("multifd-0", hello), Known(parameters={"multifd-channels": 2}))).findings
    assert [f.requirement for f in found] == ["LEG-MFD-003"]


def test_a_method_that_cannot_be_unpacked_here_is_left_alone() -> None:
    story = m.multifd()
    for place, (_, event) in enumerate(story):
        if isinstance(event, mfd.MultifdPacket) and event.pages:
            story.change(place, flags=int(mfd.MultifdFlag.QPL))
    settings = {"zero-page-detection": "multifd", "multifd-channels": 2, "multifd-compression": "qpl"}
    assert check(story, m.known((10, 0), "multifd", **settings)).findings == ()


def test_a_repeated_number_of_an_empty_packet_is_usual_up_to_8_2() -> None:
    story = m.multifd()
    at = story.at(mfd.MultifdPacket, packet_num=5)
    assert check(story.add(at + 1, m.packet(5))).findings == ()


def test_old_copies_between_two_syncs_are_a_note() -> None:
    story = m.multifd()
    at = story.at(mfd.MultifdPacket, packet_num=9)
    story.change(at, **m.packet(9, "m0", [3]).values())
    found = check(story, Known()).findings
    # Zero pages in packets are of 9.0 and later.
    assert [(f.requirement, f.severity) for f in found] == [("LEG-MFD-057", Severity.ERROR)]
    zero = story.at(mfd.MultifdPacket, packet_num=3)
    story.change(zero, **m.packet(3, "m0", range(8, 16)).values())
    story.change(story.at(hdr.Configuration), machine="pc-q35-7.2")
    story.drop(story.at(cmd.SwitchoverStart))
    story.change(story.at(sec.VmDescription), json=m.vmdesc(m.description(False)).json)
    found = check(story, Known()).findings
    assert [(f.requirement, f.severity) for f in found] == [("LEG-MFD-057", Severity.NOTE)]


def test_a_package_in_a_package() -> None:
    """No source sends one."""
    content = [cmd.PostcopyListen(), *m.packaged([cmd.PostcopyRun()]), cmd.PostcopyRun()]
    events = [*m.opening("pc-q35-10.0"), *m.packaged(content)]
    report = check(Story(m.on("main", events), Known()))
    assert {"LEG-PCP-001", "LEG-PCP-022"} <= {f.requirement for f in report.findings}


def test_the_table_of_rules_is_in_order() -> None:
    rules = list(all_rules())
    assert [rule.requirement for rule in rules] == sorted(RULES)
    assert all(rule.title for rule in rules)


def test_postcopy_of_dirty_bitmaps_only_has_no_pings_around_the_package() -> None:
    story = m.precopy()
    story.add(story.at(sec.SectionStart), cmd.PostcopyAdviseEmpty())
    content = [cmd.PostcopyListen(), *m.devices(), cmd.PostcopyRun()]
    start = story.at(sec.SectionEnd)
    story.drop(start, story.at(sec.EndOfFile) - start)
    story.add(start, *m.packaged(content), *m.part(), *m.end()).drop(story.at(sec.VmDescription))
    assert check(story, m.known((10, 0), "return-path", "dirty-bitmaps")).findings == ()


def test_run_outside_a_package() -> None:
    story = m.precopy()
    report = check(story.add(story.at(sec.SectionStart), cmd.PostcopyRun()))
    assert {f.requirement for f in report.findings} == {"LEG-PCP-020"}


def test_a_discard_before_any_page() -> None:
    events = [*m.opening("pc-q35-10.0"), *m.start(), m.discard("m0", (0, m.PAGE))]
    assert check(Story(m.on("main", events), Known())).findings == ()


def test_what_is_no_zlib_stream() -> None:
    story = m.xbzrle()
    record = ram.RamCompressedPage(word=ram.RamFlag.COMPRESS_PAGE, block="m0", deflated=b"garbage").encode()
    deltas = ram.RamDeltas(block="m0", page_size=m.PAGE, starts=(0,), data=record)
    report = check(story.add(story.at(ram.RamEos, 1), deltas), m.known((7, 2), "compress", "xbzrle"))
    assert {f.requirement for f in report.findings} == {"LEG-RAM-037"}


def test_page_bits_of_arm() -> None:
    story = m.precopy().change(1, machine="virt-10.0")
    opening = hdr.Subsection(name="configuration/target-page-bits", version_id=1)
    story.add(2, opening, hdr.ConfigurationPageBits(target_page_bits=12))
    assert check(story).findings == ()


def test_two_pieces_of_device_state() -> None:
    story = m.multifd()
    state = mfd.MultifdDeviceState(
        flags=0x40, idstr_field=b"vfio".ljust(256, b"\0"), instance_id=0, data=b"x"
    )
    at = story.at(mfd.MultifdPacket, packet_num=8)
    assert check(story.add(at, state, state)).findings == ()


def test_an_ignored_block_of_a_mapped_ram_file() -> None:
    story = m.mapped_ram()
    at = story.at(MappedRamHeader)
    story.change(at, bitmap_offset=0, pages_offset=0).drop(at + 1, 3)
    assert check(story).findings == ()


def test_more_ping_values_than_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returnpath_module, "VALUES", 0)
    story = m.precopy()
    assert check(story).findings == ()


def test_a_live_section_with_the_id_of_a_device() -> None:
    events = [*m.opening("pc-q35-10.0"), *m.full(m.RAM_ID, "early", 0, 1, b""), *m.start()]
    report = check(Story(m.on("main", events), Known()))
    assert {f.requirement for f in report.findings} == {"LEG-SEC-026"}


def test_no_configuration_no_key_in_the_description() -> None:
    story = m.precopy()
    story.drop(story.at(hdr.Configuration))
    story.change(story.at(sec.VmDescription), json=m.vmdesc(m.description(configuration=False)).json)
    assert check(story, Known()).findings == ()


def test_state_that_is_sent_early_from_8_0_on() -> None:
    """Before or behind the START of ram, as 11.1 and 10.0 do with virtio-mem."""
    for before_start in (True, False):
        story = m.precopy()
        at = story.at(sec.SectionStart if before_start else sec.SectionPart)
        story.add(at, *m.full(7, "0000:00:03.0/virtio-mem-device-early", 0, 1, bytes(1)))
        tree = m.description()
        field = {"name": "f", "type": "uint8", "size": 1}
        name = "0000:00:03.0/virtio-mem-device-early"
        tree["devices"].insert(0, {"name": name, "instance_id": 0, "version": 1, "fields": [field]})
        story.change(story.at(sec.VmDescription), json=m.vmdesc(tree).json)
        assert check(story).findings == ()


def test_a_page_size_that_is_found_late() -> None:
    """1 KiB pages; as long as only zero pages came, a reader takes them for 4 KiB ones."""
    story = m.xbzrle()
    story.change(1, machine="raspi3b")
    places = [story.at(ram.RamPages), story.at(ram.RamPages, 1)]
    early = ram.RamPages.of("m0", 4096, [(number * 4096, 0) for number in range(8)], named=True)
    late = [
        (name, ram.RamPages.of(name, 1024, [(at, 0) for at in range(start, pages * 4096, 1024)], named=True))
        for name, start, pages in (("m0", 8 * 4096, 16), ("pc.bios", 0, 2))
    ]
    story.drop(places[0], 2).add(places[0], early, *(event for _, event in late))
    story.drop(story.at(ram.RamDeltas))
    tree = m.description(configuration=False)
    story.change(story.at(sec.VmDescription), json=m.vmdesc({**tree, "page_size": 1024}).json)
    assert check(story).findings == ()
    story.drop(places[0])
    assert [f.requirement for f in check(story).findings] == ["LEG-RAM-052"]


@pytest.mark.parametrize(
    ("words", "machine"),
    [
        (["qemu", "-M", "pc-i440fx-2.0", "-m", "1G"], "pc-i440fx-2.0"),
        (["-machine", "memory-backend=mb", "-machine", "type=q35,usb=on"], "q35"),
        (["-M", ""], None), (["-M"], None), ([], None),
    ],
)  # fmt: skip
def test_machine_type_of_a_command_line(words: list[str], machine: str | None) -> None:
    assert Known.from_meta({"source": {"argv": words}}).machine == machine
    assert Known.from_meta({"source": {"argv": words}, "machine": "virt-9.0"}).machine == "virt-9.0"


@pytest.mark.parametrize("machine", [None, "pc-i440fx-2.0"])
def test_no_description_is_missed_where_the_machine_may_suppress_it(machine: str | None) -> None:
    """A machine type up to 2.2, seen with 7.2: no configuration names it, and no description follows."""
    story = [
        x for x in m.precopy()
        if not isinstance(x[1], (hdr.Configuration, sec.VmDescription, hdr.ConfigurationCapabilities))
    ]  # fmt: skip
    verifier = Verifier(Known(machine=machine, properties={}, suppress_vmdesc=False))
    for channel, event in story:
        verifier.check(channel, event)
    assert "LEG-SEC-034" not in {finding.requirement for finding in verifier.finish().findings}
