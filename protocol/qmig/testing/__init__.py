"""Helpers for tests of this package and of other implementations. No test framework is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qmig.errors import QmigError
from qmig.spec import registry as _registry
from qmig.spec import vectors as _vectors

__all__ = ["checkout", "load_registry", "load_vectors", "spec_root"]


def spec_root() -> Path:
    """The folder of the specification: bundled with the installed package, else the checkout's."""
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_spec", package.parent.parent / "spec"):
        if (root / "registries").is_dir():
            return root
    raise QmigError(f"the specification is neither in {package} nor beside its checkout")


def checkout() -> Path | None:
    """The source tree this package runs from, or None when it is installed from a wheel."""
    top = spec_root().parent
    return top if (top / "pyproject.toml").is_file() else None


def load_registry(name: str) -> _registry.Registry:
    """The registry `spec/registries/NAME.toml`."""
    return _registry.load_registry(spec_root(), name)


def load_vectors(prefix: str = "", *, reader: str | None = None) -> Iterator[_vectors.Vector]:
    """The vectors whose id (such as "legacy/sections#footer-drift") begins with `prefix`, in file
    order; with `reader`, only those for that reader."""
    root = spec_root()
    for path in _vectors.vector_files(root):
        for vector in _vectors.load_file(root, path):
            if vector.id.startswith(prefix) and reader in (None, vector.reader):
                yield vector
