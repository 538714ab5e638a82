"""Who may import whom, as data, held against the import graph of the source text."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOTS = {
    name: Path(__file__).parents[2] / folder / name
    for folder, name in [("protocol", "qmig"), ("conformance", "qmig_conformance"), ("fuzz", "qmig_fuzz")]
}

BASE = {"qmig.errors", "qmig.limits"}
WIRE = {*BASE, "qmig._wire", "qmig._feed"}
CORE = {*WIRE, "qmig._version", "qmig.legacy", "qmig._cbor", "qmig.handshake"}

#: Layer -> layers of ours it may import (itself and the bare `qmig` package are always allowed).
#: A module belongs to the layer with the longest matching name. A new package needs a row.
LAYERS: dict[str, set[str]] = {
    "qmig": {"qmig._version", "qmig.errors", "qmig.legacy"},  # re-exports
    "qmig.__main__": {"qmig.cli"},
    "qmig._version": set(),
    "qmig.errors": set(),
    "qmig.limits": set(),
    "qmig._wire": BASE,
    "qmig._feed": {*BASE, "qmig._wire"},
    "qmig.legacy": WIRE,
    "qmig._cbor": BASE,
    "qmig.handshake": {*WIRE, "qmig._cbor"},
    "qmig.spec": BASE,
    "qmig.testing": {*CORE, "qmig.spec"},
    "qmig.builds": BASE,
    "qmig._nursery": set(),
    "qmig.qmp": {*CORE, "qmig._nursery"},
    "qmig.peers": {
        *CORE,
        "qmig._nursery",
        "qmig.qmp",
        "qmig.builds",
        "qmig.testing",
    },  # boots testing's guest
    "qmig.cli": {*CORE, "qmig.spec", "qmig.testing", "qmig.builds", "qmig.qmp", "qmig.peers"},
    "qmig_conformance": {*CORE, "qmig.testing", "qmig.builds", "qmig.peers", "qmig.qmp", "qmig.spec"},
    "qmig_fuzz": {*CORE, "qmig.testing", "qmig.peers"},
}

#: Packages of others -> layers that may import them. Only what is listed may be imported at all.
THIRD_PARTY: dict[str, set[str]] = {
    "construct": {"qmig._wire", "qmig.legacy"},  # in `construct()` of wire declarations
    "zstandard": {"qmig.legacy"},
    "cbor2": {"qmig._cbor"},
    "click": {"qmig.cli"},
    "rich": {"qmig.cli", "qmig_conformance"},
    "trio": {"qmig._nursery", "qmig.qmp", "qmig.peers", "qmig.cli", "qmig_conformance"},
    "trio_asyncio": {"qmig.qmp"},
    "qemu": {"qmig.qmp"},
    "jsonschema": {"qmig.spec"},
    "pytest": {"qmig_conformance"},
    "_pytest": {"qmig_conformance"},
    "pytest_trio": {"qmig_conformance"},
    "xdist": {"qmig_conformance"},
    "hypothesis": {"qmig_fuzz"},
}

#: Imports that cost start-up time stand inside functions, everywhere but in the commands' own process.
LAZY = {"cbor2", "construct", "zstandard", "rich", "trio", "trio_asyncio", "qemu", "jsonschema"}
#: Modules of ours that are all about a slow package. They are themselves imported where they are used.
SLOW_OF_OURS = {"qmig.cli.progress"}
EAGER_LAYERS = {"qmig._nursery", "qmig.qmp", "qmig.peers", "qmig_conformance"}

#: The sans-I/O core sees no clock, socket, file, process, environment, log or randomness.
SANS_IO = (
    "qmig._wire",
    "qmig._feed",
    "qmig.errors",
    "qmig.limits",
    "qmig.legacy",
    "qmig._cbor",
    "qmig.handshake",
)
CORE_STDLIB = {
    "__future__", "abc", "array", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools",
    "heapq", "importlib", "io", "itertools", "json", "math", "operator", "re", "struct", "sys", "types",
    "typing", "uuid", "weakref",
    "bz2", "hashlib", "hmac", "lzma", "zlib",  # functions from bytes to bytes
}  # fmt: skip
#: What the core may take from `sys`: facts, no streams and no arguments.
CORE_SYS = {"byteorder", "intern", "maxsize"}
CORE_BUILTINS_FORBIDDEN = {"open", "print", "input", "exec", "breakpoint"}


class Import(NamedTuple):
    importer: str
    imported: str
    line: int
    lazy: bool


def modules() -> Iterator[tuple[str, Path]]:
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


MODULES = dict(modules())
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports_of(name: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of a module that run; those for type checkers only do not."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for other in node.orelse:
                    yield from visit(other, lazy)
                return
            case ast.Import(names=names, lineno=line):
                for alias in names:
                    yield Import(name, alias.name, line, lazy)
            case ast.ImportFrom(module=module, names=names, level=level, lineno=line):
                assert level == 0, f"{name}:{line}: relative import"
                for alias in names:
                    full = f"{module}.{alias.name}"
                    yield Import(name, full if full in MODULES else str(module), line, lazy)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or inside)

    return visit(tree, False)


IMPORTS = [found for name, tree in TREES.items() for found in imports_of(name, tree)]


def layer(module: str) -> str:
    """The longest row of LAYERS that covers the module."""
    fitting = [row for row in LAYERS if module == row or module.startswith(f"{row}.")]
    return max(fitting, key=len)


def of_ours(found: Import) -> bool:
    return found.imported.partition(".")[0] in ROOTS


def test_every_subpackage_has_a_row() -> None:
    """Otherwise a new folder would inherit the rights of the bare `qmig` package."""
    direct = {name for name in MODULES if name.count(".") == 1 and name.startswith("qmig.")}
    assert sorted(name for name in direct if layer(name) == "qmig") == []


@pytest.mark.parametrize("name", MODULES)
def test_dependency_directions(name: str) -> None:
    own = layer(name)
    allowed = {own, "qmig", *LAYERS[own]}
    wrong = [
        f"line {found.line}: imports {found.imported}"
        for found in IMPORTS
        if found.importer == name and of_ours(found) and layer(found.imported) not in allowed
    ]
    assert wrong == []


def test_third_party_packages_stay_in_their_layers() -> None:
    stdlib = __import__("sys").stdlib_module_names
    wrong = [
        f"{found.importer}:{found.line}: {found.imported}"
        for found in IMPORTS
        if not of_ours(found)
        and (top := found.imported.partition(".")[0]) not in stdlib
        and layer(found.importer) not in THIRD_PARTY.get(top, set())
    ]
    assert wrong == []


def test_slow_packages_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{found.importer}:{found.line}: {found.imported}"
        for found in IMPORTS
        if (found.imported.partition(".")[0] in LAZY or found.imported in SLOW_OF_OURS)
        and not found.lazy
        and layer(found.importer) not in EAGER_LAYERS
        and found.importer not in SLOW_OF_OURS
    ]
    assert wrong == []


def test_core_uses_no_standard_module_with_side_effects() -> None:
    wrong = [
        f"{found.importer}:{found.line}: {found.imported}"
        for found in IMPORTS
        if layer(found.importer) in SANS_IO
        and not of_ours(found)
        and (top := found.imported.partition(".")[0]) not in CORE_STDLIB
        and layer(found.importer) not in THIRD_PARTY.get(top, set())
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in MODULES if layer(name) in SANS_IO])
def test_core_neither_asserts_nor_does_io(name: str) -> None:
    """`python -O` drops assertions, so none may guard against input; only what tells a type checker that an
    optional value is there is let pass."""
    wrong = [
        f"line {node.lineno}: {ast.unparse(node)[:60]}"
        for node in ast.walk(TREES[name])
        if (isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith(" is not None"))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in CORE_BUILTINS_FORBIDDEN
        )
        or (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "sys"
            and node.attr not in CORE_SYS
        )
        or (isinstance(node, ast.ImportFrom) and node.module == "sys")
    ]
    assert wrong == []


def test_the_suite_uses_no_private_module_or_name() -> None:
    """It is written against what any user of the library sees."""
    wrong = []
    for name, tree in TREES.items():
        if name.partition(".")[0] != "qmig_conformance":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "qmig":
                words = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                words = [w for a in node.names if a.name.startswith("qmig.") for w in a.name.split(".")]
            else:
                continue
            wrong += [f"{name}:{node.lineno}: {w}" for w in words if re.match(r"_(?!_)", w)]
    assert wrong == []


def test_commands_are_reached_by_their_table_only() -> None:
    """An import of a command module by `qmig.cli` itself would undo the lazy start."""
    found = [i for i in IMPORTS if i.importer == "qmig.cli" and not i.lazy and i.imported.startswith("qmig")]
    assert found == []


def test_the_checks_see_lazy_and_eager_imports() -> None:
    tree = ast.parse(
        "import a\ndef f():\n    from b import c\nif TYPE_CHECKING:\n    import d\nelse:\n    import e"
    )
    assert [(i.imported, i.lazy) for i in imports_of("x", tree)] == [("a", False), ("b", True), ("e", False)]


def test_files_of_tests_have_unique_names_and_no_package() -> None:
    top = Path(__file__).parents[2]
    tests = [
        path
        for folder in ("protocol", "conformance", "fuzz")
        for path in (top / folder / "tests").rglob("*.py")
    ]
    names = [path.name for path in tests]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
    assert [path for path in tests if path.name == "__init__.py"] == []


POSSESSIVE_GROUP = re.compile(r"(?<!\\)\)(?:[*+?]|\{[0-9,%d]*\})\+")


def test_no_possessive_groups_in_patterns() -> None:
    """Before Python 3.11.5 (Debian 12 has 3.11.2), `re` matches too many bytes behind one."""
    assert POSSESSIVE_GROUP.search(r"(?:ab|a){0,%d}+")
    assert POSSESSIVE_GROUP.search("(a)*+")
    assert not POSSESSIVE_GROUP.search(r"\)*+ (a)*b+ (?>a)")
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str | bytes)
        and POSSESSIVE_GROUP.search(
            node.value if isinstance(node.value, str) else node.value.decode("latin-1")
        )
    ]
    assert wrong == []
