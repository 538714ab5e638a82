"""Registries against enums, both ways; every sample through the generic round trip."""

import enum
from dataclasses import replace

import pytest

from qmig._wire import NeedBytes, Record
from qmig.errors import LocalProtocolError, QmigError
from qmig.spec.registry import Entry, Registry, differences, load_registry, read_toml, registry_names, resolve
from qmig.testing import spec_root

ROOT = spec_root()
REGISTRIES = {name: load_registry(ROOT, name) for name in registry_names(ROOT)}
SAMPLES = [
    pytest.param(entry, id=f"{registry.name}-{entry.name}")
    for registry in REGISTRIES.values()
    for entry in registry.entries
    if entry.sample is not None
]


@pytest.mark.parametrize("name", REGISTRIES)
def test_registry_and_enum_agree(name: str) -> None:
    assert differences(REGISTRIES[name]) == []


@pytest.mark.parametrize(
    ("name", "page", "words"),
    [
        ("destination-outcomes", "90-destination", "runs exits stays waits blocks dies pauses"),
        ("source-outcomes", "55-return-path", "completes fails waits"),
    ],
)
def test_every_outcome_is_one_that_the_chapter_explains(name: str, page: str, words: str) -> None:
    """And every row tells it for each build that can be asked: since 5.2, 7.1, 9.0 or 9.1, or until 9.0."""
    chapter = (ROOT / "legacy" / f"{page}.md").read_text(encoding="utf-8")
    assert all(f"`{word}`: " in " ".join(chapter.split()) for word in words.split())
    for entry in REGISTRIES[name].entries:
        builds = set() if entry.until else {"v10_0", "v11_1"}
        builds |= {"v5_2"} if entry.since == "5.2" else set()
        builds |= {"v7_2"} if entry.since in {"5.2", "7.1"} else set()
        assert entry.extra.keys() == builds, entry.value
        assert set(entry.extra.values()) <= set(words.split()), entry.value


@pytest.mark.parametrize("entry", SAMPLES)
def test_sample_is_read_whole_and_written_back(entry: Entry) -> None:
    sample, record = sample_of(entry)
    value, size = record.decode(memoryview(sample), entry.context)
    assert size == len(sample)
    assert value.encode() == sample
    assert record(**value.values()).encode() == sample


@pytest.mark.parametrize("entry", SAMPLES)
def test_every_beginning_of_a_sample_asks_for_more(entry: Entry) -> None:
    """And never for more than the record has. Where the last field takes all there is, a beginning may
    be a record too, or be refused."""
    sample, record = sample_of(entry)
    for size in range(len(sample)):
        needed, read = attempt(record, sample[:size], entry)
        assert size < needed <= len(sample) or (needed == 0 and is_greedy(record))
        assert sample.startswith(read)


def attempt(record: type[Record], data: bytes, entry: Entry) -> tuple[int, bytes]:
    """How many bytes the record asks for (0: none), and those that it read."""
    try:
        value, used = record.decode(memoryview(data), entry.context)
    except NeedBytes as need:
        return need.size, b""
    except LocalProtocolError:
        return 0, b""
    assert value.encode() == data[:used]
    return 0, data[:used]


@pytest.mark.parametrize("entry", SAMPLES)
def test_bytes_behind_a_sample_are_left(entry: Entry) -> None:
    sample, record = sample_of(entry)
    if is_greedy(record):
        assert record.minimum(entry.context) <= len(sample)
    else:
        assert record.decode(memoryview(sample + b"\xff" * 9), entry.context)[1] == len(sample)


def is_greedy(record: type[Record]) -> bool:
    """Whether the record ends where the bytes given to it end (its length is in an outer record)."""
    return record.fields_layout()[-1].type.startswith("Greedy")


@pytest.mark.parametrize("entry", SAMPLES)
def test_sample_is_what_construct_reads(entry: Entry) -> None:
    """The declaration's construct form, which others may use, means the same bytes."""
    sample, record = sample_of(entry)
    struct = record.construct(entry.context)
    assert struct.build(struct.parse(sample)) == sample


def sample_of(entry: Entry) -> tuple[bytes, type[Record]]:
    assert entry.sample is not None
    assert entry.record is not None
    record = resolve(entry.record)
    assert issubclass(record, Record)
    return entry.sample, record


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2
    NAVY = 2


def registry(*rows: tuple[int, str]) -> Registry:
    entries = tuple(Entry(value=v, name=n, since="5.2", requirement="LEG-GEN-001") for v, n in rows)
    return Registry(
        name="colours", title="Colours", chapter="00-conventions", enum=f"{__name__}:Colour", hex_digits=2,
        columns={}, entries=entries,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--import-mode=importlib` does not put test modules where `resolve` finds them."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "Colour", Colour, raising=False)


def test_differences_are_found_in_both_directions() -> None:
    good = registry((1, "RED"), (2, "BLUE"), (2, "NAVY"))
    assert differences(good) == []
    assert differences(replace(good, enum=None)) == []
    assert differences(registry((1, "RED"), (2, "BLUE"))) == [
        f"{__name__}:Colour.NAVY = 2 is not in the registry"
    ]
    extra = registry((1, "RED"), (2, "BLUE"), (2, "NAVY"), (3, "TEAL"))
    assert differences(extra) == [f"TEAL = 3 is not in {__name__}:Colour"]
    other = registry((9, "RED"), (2, "BLUE"), (2, "NAVY"))
    assert differences(other) == [f"RED is 9 in the registry, 1 in {__name__}:Colour"]
    assert differences(replace(good, enum="qmig.errors:QmigError")) == [
        "qmig.errors:QmigError is not an enum"
    ]


def test_values_are_shown_as_the_registry_says() -> None:
    one = registry((1, "RED"))
    assert one.value_text(10) == "0x0a"
    assert replace(one, hex_digits=0).value_text(10) == "10"
    assert one.value_text("text") == "text"


@pytest.mark.parametrize("target", ["qmig.errors:Nothing", "qmig.nothing:X", "qmig.errors", ""])
def test_target_that_names_nothing(target: str) -> None:
    with pytest.raises(QmigError, match="names nothing"):
        resolve(target)


def test_unusable_files_are_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("spec")
    folder = root / "registries"
    folder.mkdir()
    with pytest.raises(QmigError, match="no registry 'none'"):
        read_toml(root, "none")
    (folder / "broken.toml").write_text("title = ")
    with pytest.raises(QmigError, match=r"broken\.toml"):
        read_toml(root, "broken")
    (folder / "empty.toml").write_text("title = 'x'")
    with pytest.raises(QmigError, match=r"empty\.toml: KeyError: 'chapter'"):
        load_registry(root, "empty")
    assert registry_names(root) == ["broken", "empty"]
