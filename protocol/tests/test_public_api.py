"""The package's public names: resolved lazily, seen by type checkers, the same in both places."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import qmig


def names_for_type_checkers() -> dict[str, str]:
    """Name -> module of the imports under TYPE_CHECKING."""
    tree = ast.parse(Path(qmig.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        str(alias.asname): str(node.module)
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_run_time_and_type_checkers_see_the_same_names() -> None:
    assert names_for_type_checkers() == qmig._EXPORTS


@pytest.mark.parametrize("name", qmig._EXPORTS)
def test_name_is_the_object_of_its_module(name: str) -> None:
    assert getattr(qmig, name) is getattr(import_module(qmig._EXPORTS[name]), name)
    assert name in dir(qmig)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'qmig' has no attribute 'nothing'"):
        _ = qmig.nothing
