#!/usr/bin/env python3
"""Makes protocol/qmig/legacy/vmstate/{encodings,layouts}.json from what real builds of QEMU send.

    tools/vmstate_layouts.py --out DIR --dumps FILE... --streams FILE...

Streams are plain files that end with a vmdesc (`migrate exec:cat>FILE`), optionally .xz; dumps are
`-dump-vmstate` files. A stream's path must contain the same `/VERSION/ARCH/` as the name of the dump of its
build says (`ARCH-VERSION.json`), so that each description is compared with what its own build declares.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "protocol"))

from qmig.legacy.vmstate.compiled import rows_of
from qmig.legacy.vmstate.dumpvmstate import DumpVmstate, StaticField, parse_dump_vmstate
from qmig.legacy.vmstate.linked import OWN_LENGTH
from qmig.legacy.vmstate.types import LISTS, MARKERS, NESTED, SCALARS
from qmig.legacy.vmstate.vmdesc import Body, FieldDescription, parse_vmdesc

_DESCRIPTION = re.compile(rb"\x06(....)(?=\{)", re.DOTALL)
_BY_SIZE = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}

#: what one description says of a field: type, bytes of an element (None: as its own build
#: declares), elements, whether an array
Seen = tuple[str, int | None, int, bool]


def content(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def description(data: bytes) -> int | None:
    """Where the vmdesc begins that ends a stream."""
    for found in _DESCRIPTION.finditer(data):
        if found.end() + int.from_bytes(found[1], "big") == len(data):
            return found.end()
    return None


def build_of(path: Path) -> str:
    version, arch = path.parent.parent.name, path.parent.name
    return f"{arch}-{version}"


#: (VMSD, field) -> the field in front that has its length ("@") or is not 0 if and only if it is
#: there ("?"). No description says so; read in the sources of QEMU named here.
LINKS = {
    ("ide_drive", "identify_data"): "?identify_set",  # hw/ide/core.c
    ("uefi-variable", "name"): "@name_size",  # hw/uefi/var-service-vars.c
    ("uefi-variable", "data"): "@data_size",
    ("uefi-vars", "pio_xfer_buffer"): "@buf_size",  # hw/uefi/var-service-core.c
    ("cpu", "cpreg_vmstate_indexes"): "@cpreg_vmstate_array_len",  # target/arm/machine.c
    ("cpu", "cpreg_vmstate_values"): "@cpreg_vmstate_array_len",
    ("PCIE_AER_ERROR_LOG", "log"): "@log_num",  # hw/pci/pcie_aer.c
}


class Survey:
    """Everything that was seen."""

    def __init__(self, dumps: dict[str, DumpVmstate]) -> None:
        self.dumps = dumps
        self.seen: dict[str, dict[str, set[Seen]]] = defaultdict(lambda: defaultdict(set))
        self.missing: dict[str, list[tuple[dict[str, Any], Body]]] = defaultdict(list)
        self.declared: dict[str, dict[str, list[tuple[bool, StaticField]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.counts: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        self.sizes: dict[str, dict[tuple[str, str], set[int]]] = defaultdict(lambda: defaultdict(set))
        self.versions: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.empty: dict[str, set[str]] = defaultdict(set)
        self.present: dict[str, dict[str, set[bool]]] = defaultdict(lambda: defaultdict(set))
        self.must: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.may: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.top: dict[tuple[str, str], list[frozenset[str]]] = defaultdict(list)
        for build, dump in dumps.items():
            for vmsd in dump.classes.values():
                self.top[build, vmsd.name].append(frozenset(field.name for field in vmsd.fields))
                for one in vmsd.within():
                    self.versions[build][one.name].add(one.version_id)
                    for field in one.fields:
                        self.declared[one.name][field.name].append((dump.counts, field))
                        self.sizes[build][one.name, field.name].add(field.size)
                        kind = self.may if field.conditional else self.must
                        kind[build][one.name].add(field.name)

    def add(self, text: bytes, build: str) -> None:
        raw = {(d["name"], d["instance_id"]): d for d in json.loads(text)["devices"]}
        for device in parse_vmdesc(text).devices:
            body = device.body
            if not body.vmsd_name:
                continue
            self._body(body, build)
            names = {row[0].name for row in rows_of(body)}
            old = body.vmsd_name == "globalstate" and len(names) == 2  # the newer one reads it too
            if not old and not any(names <= declared for declared in self.top[build, body.vmsd_name]):
                self.missing[body.vmsd_name].append((raw[device.name, device.instance_id], body))

    def _presence(self, body: Body, build: str) -> None:
        here = {row[0].name for row in rows_of(body)}
        if here <= self.must[build][body.vmsd_name] | self.may[build][body.vmsd_name]:
            for name in self.may[build][body.vmsd_name]:
                self.present[body.vmsd_name][name].add(name in here)
            if self.versions[build][body.vmsd_name] == {body.version}:
                for name in self.must[build][body.vmsd_name] - self.may[build][body.vmsd_name] - here:
                    self.empty[body.vmsd_name].add(name)

    def _body(self, body: Body, build: str) -> None:
        self._presence(body, build)
        for row in rows_of(body):
            name, (type_, size, count, array) = _seen(row)
            as_declared = self.sizes[build][body.vmsd_name, name] == {size}
            self.counts[body.vmsd_name, name][count] += 1
            seen: Seen = (type_, None if as_declared else size, count, array)
            self.seen[body.vmsd_name][name].add(seen)
            for field in row:
                for nested in field.bodies:
                    self._body(nested, build)
        for sub in body.subsections:
            self._body(sub, build)

    # -- encodings ---------------------------------------------------------------

    def encodings(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for vmsd, fields in sorted(self.declared.items()):
            known = {}
            for name, declared in fields.items():
                text = self._encoding(vmsd, name, declared)
                if text is not None:
                    known[name] = text
            if known:
                found[vmsd] = known
        for (vmsd, name), link in LINKS.items():
            if name not in found.setdefault(vmsd, {}):
                found[vmsd][name] = next(iter(self.seen[vmsd][name]))[0] + "*" * link.startswith("@") + link
        return found

    def _encoding(self, vmsd: str, name: str, declared: list[tuple[bool, StaticField]]) -> str | None:
        seen = self.seen[vmsd][name]
        if not seen:
            if self.present[vmsd][name] == {False}:
                return "-"
            nested = any(field.vmsd is not None for _, field in declared)
            return "struct*0+" + LINKS.get((vmsd, name), "") if name in self.empty[vmsd] and nested else None
        text = _encoding(seen, declared)
        if text is not None and text.endswith("*"):
            count, times = self.counts[vmsd, name].most_common(1)[0]
            if times >= 0.75 * self.counts[vmsd, name].total() and LINKS.get((vmsd, name)) is None:
                text += f"{count}="
        suffix = LINKS.get((vmsd, name), "")
        if self.present[vmsd][name] == {True}:
            suffix += "!"
        if not suffix:
            return text
        types = {type_ for type_, _, _, _ in seen}
        return (text or types.pop()) + suffix if text or len(types) == 1 else None

    # -- layouts -------------------------------------------------------------------

    def layouts(self) -> list[dict[str, Any]]:
        """As few descriptions as show every field, and that a length varies where it does."""
        found = []
        for _, bodies in sorted(self.missing.items()):
            shown: dict[str, set[tuple[int, int]]] = defaultdict(set)
            for device, body in sorted(bodies, key=lambda pair: -len(json.dumps(pair[0]))):
                parts = list(_parts(body, ""))
                if any(lengths not in shown[part] and len(shown[part]) < 2 for part, lengths in parts):
                    for part, lengths in parts:
                        shown[part].add(lengths)
                    found.append(device)
        for number, device in enumerate(found):
            device["instance_id"] = number  # one list of many machines: only the VMSDs matter
        return found


def _parts(body: Body, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every field and subsection by its place, with how many elements of how many bytes."""
    path += f"/{body.vmsd_name}@{body.version}"
    yield path + ":" + ",".join(row[0].name for row in rows_of(body)), (0, 0)
    for row in rows_of(body):
        count = sum(1 if field.array_len is None else field.array_len for field in row)
        size = 0 if row[0].bodies else row[0].size
        yield f"{path}.{row[0].name}={row[0].type}", (count, size)
        for field in row:
            for nested in field.bodies:
                yield from _parts(nested, f"{path}.{field.name}")
    for sub in body.subsections:
        yield from _parts(sub, path)


def _seen(row: list[FieldDescription]) -> tuple[str, tuple[str, int, int, bool]]:
    real = [field for field in row if field.type not in MARKERS]
    first = (real or row)[0]
    doubled = any(field.type == "ptr-marker" for field in row)
    count = sum(1 if field.array_len is None else field.array_len for field in row)
    array = first.array_len is not None or len(row) > 1
    size = 0 if first.bodies or first.type in NESTED | LISTS else first.size
    return first.name, ("ptr-marker" if doubled else first.type, size, count, array)


def _encoding(seen: set[Seen], declared: list[tuple[bool, StaticField]]) -> str | None:
    """The encoding of a field, None where it is the plainest one or not known."""
    types = {type_ for type_, _, _, _ in seen}
    if len(types) > 1 and "nullptr" in types:
        types.discard("nullptr")
    if len(types) != 1:
        return None
    (type_,) = types
    counts = {count for _, _, count, _ in seen}
    sizes = {size for _, size, _, _ in seen}
    nums = {field.num for tells, field in declared if tells}
    array = _array(counts, nums)
    if type_ in NESTED | LISTS | {"gtree", "ptr-marker"}:
        return None if type_ == "struct" and not array else type_ + array
    member = {field.size for _, field in declared}
    nested = any(field.vmsd is not None for _, field in declared)
    if type_ in SCALARS:
        plain = member == {SCALARS[type_][1]} and type_ == _BY_SIZE.get(SCALARS[type_][1])
        return None if plain and not array and not nested else type_ + array
    if type_ in OWN_LENGTH or type_ == "msix state":
        return type_
    if sizes == {None} and 0 not in member and type_ != "virtio":
        return type_ + array
    if len(sizes) > 1 or 0 in member or type_ == "virtio":
        return f"{type_}~"
    return f"{type_}:{sizes.pop()}{array}"


def _array(counts: set[int], nums: set[int | None]) -> str:
    if nums - {None}:
        fixed = nums - {None}
        return f"*{fixed.pop()}" if len(nums) == 1 else ""
    if counts == {1}:
        return ""
    if len(counts) > 1:
        return "*"
    return f"*{counts.pop()}" + ("+" if nums else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dumps", type=Path, nargs="+", required=True)
    parser.add_argument("--streams", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    survey = Survey({path.stem: parse_dump_vmstate(path.read_bytes()) for path in args.dumps})
    without = 0
    for path in args.streams:
        data = content(path)
        start = description(data)
        if start is None:
            without += 1
        else:
            survey.add(data[start:], build_of(path))
    encodings = survey.encodings()
    (args.out / "encodings.json").write_text(json.dumps(encodings, indent=0, sort_keys=True) + "\n")
    devices = survey.layouts()
    layouts = {"page_size": 4096, "devices": devices}
    (args.out / "layouts.json").write_text(json.dumps(layouts, separators=(",", ":")) + "\n")
    print(
        f"{len(args.streams)} streams ({without} without a description), {len(survey.seen)} VMSDs, "
        f"{sum(map(len, encodings.values()))} encodings, {len(devices)} layouts"
    )


if __name__ == "__main__":
    main()
