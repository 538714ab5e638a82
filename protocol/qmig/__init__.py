"""QEMU live migration on the wire.

Public API, re-exports only. Names are resolved on first use (PEP 562), so that ``import qmig`` costs
nothing and a command that needs one module imports one module. A new public name is one row in
``_EXPORTS`` and one import under ``TYPE_CHECKING`` (for type checkers); a test compares the two.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from qmig._version import __version__ as __version__

if TYPE_CHECKING:
    from qmig.errors import LocalProtocolError as LocalProtocolError
    from qmig.errors import ProtocolError as ProtocolError
    from qmig.errors import RemoteProtocolError as RemoteProtocolError

_EXPORTS = {
    "LocalProtocolError": "qmig.errors",
    "ProtocolError": "qmig.errors",
    "RemoteProtocolError": "qmig.errors",
}


def __getattr__(name: str) -> object:
    try:
        module = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
