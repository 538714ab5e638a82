"""`_wire`: the codec derived from a declaration and construct's own agree."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, ClassVar

import construct
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qmig.legacy
from qmig import _wire
from qmig._wire import (
    Bytes,
    CountedString,
    GreedyArray,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32sb,
    Int32ub,
    Int32ul,
    Int64sb,
    Int64ub,
    Int64ul,
    NeedBytes,
    Pair,
    Prefixed,
    PrefixedArray,
    PrefixedString,
    Raw,
    Record,
    attr,
    const,
    wire,
    wire_if,
)
from qmig.errors import LocalProtocolError

for module in pkgutil.walk_packages(qmig.legacy.__path__, "qmig.legacy."):
    importlib.import_module(module.name)


class Everything(Record):
    """One field of every kind."""

    requirement: ClassVar[str] = "LEG-GEN-001"
    tag = const(Int8ub, 0x42)
    a: int = wire(Int16ub)
    b: int = wire(Int32sb)
    c: int = wire(Int64ul)
    name: str = wire(CountedString)
    fixed: bytes = wire(Bytes(3))
    optional: int | None = wire_if("extra", Int64sb, default=None)
    long: str = wire(PrefixedString(Int32ub, 100))
    parts: tuple[str, ...] = wire(PrefixedArray(Int8ub, CountedString, 4))
    blob: bytes = wire(Prefixed(Int16ub, 50))
    seen: str = attr(str)
    pairs: tuple[tuple[int, int], ...] = wire(GreedyArray(Pair(Int32ub, Int32ul)))


class Rest(Record):
    requirement: ClassVar[str] = "LEG-GEN-001"
    first: int = wire(Int64ub)
    rest: Raw = wire(GreedyBytes)


def subclasses(kind: type[Record]) -> list[type[Record]]:
    found = []
    for child in kind.__subclasses__():
        found += [child, *subclasses(child)]
    return found


#: those that stand for something on the wire; a private one is only what several of them share
RECORDS = [
    kind
    for kind in subclasses(Record)
    if kind.__module__.startswith("qmig.") and not kind.__name__.startswith("_")
]

text = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
VALUES: dict[type[Any], Any] = {
    _wire.Bytes: lambda subcon: st.binary(min_size=subcon.minimum, max_size=subcon.minimum),
    _wire.Prefixed: lambda subcon: st.binary(max_size=min(subcon.limit, 40)),
    _wire.PrefixedString: lambda _: text,
    _wire.PrefixedArray: lambda subcon: st.lists(value_of(subcon.element), max_size=4).map(tuple),
    _wire.Pair: lambda subcon: st.tuples(value_of(subcon.first), value_of(subcon.second)),
    _wire.GreedyArray: lambda subcon: st.lists(value_of(subcon.element), max_size=4).map(tuple),
    type(GreedyBytes): lambda _: st.binary(max_size=40),
}


def value_of(subcon: Any) -> Any:
    if isinstance(subcon, _wire.Scalar):
        bits = 8 * subcon.minimum
        if subcon.name.endswith(("sb", "sl")):
            return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
        return st.integers(0, (1 << bits) - 1)
    for kind in type(subcon).__mro__:
        if kind in VALUES:
            return VALUES[kind](subcon)
    raise TypeError(f"no strategy for {subcon.name}")


def draw_record(data: st.DataObject, kind: type[Record], context: set[str]) -> Record:
    values: dict[str, Any] = {}
    for field in kind._fields:
        if field.const is not None or (field.when and field.when not in context):
            continue
        on_wire = field in kind._layout
        values[field.name] = data.draw(value_of(field.subcon), label=field.name) if on_wire else b""
    return kind(**values)


def plain(value: Any) -> Any:
    """construct's result in our terms: names are bytes there, lists are tuples here."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    return value


@pytest.mark.parametrize("kind", [*RECORDS, Everything, Rest], ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_codec_and_construct_agree(kind: type[Record], data: st.DataObject) -> None:
    words = sorted({field.when for field in kind._layout if field.when})
    context = data.draw(st.sets(st.sampled_from(words))) if words else set()
    try:
        record = draw_record(data, kind, context)
    except (LocalProtocolError, TypeError, ValueError):
        return  # the record forbids these values, or takes richer ones; its family's own tests cover it
    raw = record.encode()
    extra = {name: getattr(record, name) for name in kind.names() if name not in _on_wire(kind)}
    decoded, used = kind.decode(memoryview(raw), context, **extra)
    assert used == len(raw)
    assert {k: plain(v) for k, v in decoded.values().items()} == {
        k: plain(v) for k, v in record.values().items()
    }
    parsed = kind.construct(context).parse(raw)
    for name, value in record.values().items():
        if name in parsed:
            assert plain(parsed[name]) == plain(value)
    fields = {k: list(plain(v)) if isinstance(v, tuple) else plain(v) for k, v in record.values().items()}
    assert kind.construct(context).build(fields) == raw


def _on_wire(kind: type[Record]) -> set[str]:
    return {field.name for field in kind._layout}


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_record_says_what_it_is(kind: type[Record]) -> None:
    assert kind.__doc__
    assert kind.requirement != Record.requirement or kind._layout == ()
    for row in kind.fields_layout():
        assert row.name
        assert row.size


SAMPLE = Everything(
    a=1,
    b=-2,
    c=3,
    name="ram",
    fixed=b"abc",
    long="x" * 9,
    parts=("p", ""),
    blob=b"zz",
    seen="",
    pairs=((1, 2),),
)


def test_need_bytes_is_exact_at_every_prefix() -> None:
    raw = SAMPLE.encode()
    end = len(raw) - 8  # the greedy array takes what is there
    for size in range(end):
        with pytest.raises(NeedBytes) as caught:
            Everything.decode(memoryview(raw[:size]), seen="")
        assert size < caught.value.size <= end
    need = Everything.minimum()
    steps: list[int] = []
    while True:  # asking for exactly that much, again and again, gets there
        try:
            Everything.decode(memoryview(raw[:need]), seen="")
        except NeedBytes as more:
            steps.append(more.size)
            need = more.size
            continue
        break
    assert need == end
    assert steps == sorted(set(steps))


def test_bytes_ask_for_what_is_missing() -> None:
    with pytest.raises(NeedBytes) as caught:
        Bytes(3).decode(memoryview(b"xxab"), 2)
    assert caught.value.size == 5


def test_wrong_constant_is_named() -> None:
    with pytest.raises(LocalProtocolError, match=r"tag is 0x41, expected 0x42") as caught:
        Everything.decode(memoryview(b"\x41" + SAMPLE.encode()[1:]), seen="")
    assert caught.value.requirement == "LEG-GEN-001"


@pytest.mark.parametrize(
    ("subcon", "raw"),
    [
        (Prefixed(Int32ub, 5), b"\xff\xff\xff\xff"),
        (PrefixedString(Int32ub, 5), b"\0\0\0\x06"),
        (PrefixedArray(Int32ub, CountedString, 5), b"\0\0\0\x06"),
    ],
    ids=["Prefixed", "PrefixedString", "PrefixedArray"],
)
def test_lengths_over_the_limit_are_refused_before_their_data(subcon: Any, raw: bytes) -> None:
    with pytest.raises(OverflowError, match="over the limit of 5"):
        subcon.decode(memoryview(raw), 0)


@pytest.mark.parametrize(
    "change",
    [{"a": 1 << 16}, {"a": "x"}, {"fixed": b"ab"}, {"name": "x" * 256}, {"parts": ("x",) * 256}],
    ids=str,
)
def test_values_that_do_not_fit_are_local_errors(change: dict[str, Any]) -> None:
    record = Everything(**{**SAMPLE.values(), **change})
    with pytest.raises(LocalProtocolError, match="does not fit"):
        record.encode()


def test_records_are_values() -> None:
    again = Everything(**SAMPLE.values()).place(7, 9)
    assert again == SAMPLE
    assert hash(again) == hash(SAMPLE)
    assert (again.offset, again.size) == (7, 9)
    assert Rest(first=1, rest=b"") != SAMPLE
    assert Everything.tag == 0x42
    with pytest.raises(AttributeError, match="immutable"):
        again.a = 5  # type: ignore[misc]
    with pytest.raises(TypeError, match="needs first"):
        Rest(rest=b"")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no bogus"):
        Rest(first=1, rest=b"", bogus=2)  # type: ignore[call-arg]


def test_a_field_must_not_hide_what_every_record_has() -> None:
    with pytest.raises(TypeError, match="size"):
        type("Bad", (Record,), {"size": wire(Int8ub)})


def test_repr_is_bounded() -> None:
    assert repr(Rest(first=300, rest=b"")) == "Rest(first=0x12c, rest=b'')"
    assert len(repr(Rest(first=1, rest=bytes(10_000)))) < 200


def test_layout_rows_stop_giving_offsets_behind_a_variable_field() -> None:
    offsets = {row.name: row.offset for row in Everything.fields_layout()}
    assert offsets["name"] == 15
    assert offsets["fixed"] is None


def test_a_subcon_must_say_how_it_is_encoded() -> None:
    bare: _wire.Subcon[int] = _wire.Subcon("Pass")
    with pytest.raises(NotImplementedError):
        bare.decode(memoryview(b""), 0)
    with pytest.raises(NotImplementedError):
        bare.encode(1)
    assert bare.construct() is construct.Pass
