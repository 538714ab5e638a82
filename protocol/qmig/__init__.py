"""QEMU live migration on the wire.

Public API, re-exports only. Names are resolved on first use (PEP 562), so that ``import qmig`` costs
nothing and a command that needs one module imports one module. A new public name is one row in
``_EXPORTS`` and one import under ``TYPE_CHECKING`` (for type checkers); a test compares the two.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from qmig._version import __version__ as __version__

if TYPE_CHECKING:
    from qmig._wire import Record as Record
    from qmig.errors import LimitExceeded as LimitExceeded
    from qmig.errors import LocalProtocolError as LocalProtocolError
    from qmig.errors import ProtocolError as ProtocolError
    from qmig.errors import QmigError as QmigError
    from qmig.errors import RemoteProtocolError as RemoteProtocolError
    from qmig.errors import TruncatedStream as TruncatedStream
    from qmig.errors import UnsupportedFeature as UnsupportedFeature
    from qmig.legacy.connection import Told as Told
    from qmig.legacy.rebuild import Rebuild as Rebuild
    from qmig.legacy.receiver import CLOSED as CLOSED
    from qmig.legacy.receiver import NEED_DATA as NEED_DATA
    from qmig.legacy.receiver import LegacyReceiver as LegacyReceiver
    from qmig.legacy.sender import LegacySender as LegacySender
    from qmig.legacy.session import MigrationSession as MigrationSession
    from qmig.legacy.state import StreamState as StreamState
    from qmig.legacy.verify import Verifier as Verifier

_EXPORTS = {
    "CLOSED": "qmig.legacy.receiver",
    "LegacyReceiver": "qmig.legacy.receiver",
    "LegacySender": "qmig.legacy.sender",
    "LimitExceeded": "qmig.errors",
    "LocalProtocolError": "qmig.errors",
    "MigrationSession": "qmig.legacy.session",
    "NEED_DATA": "qmig.legacy.receiver",
    "ProtocolError": "qmig.errors",
    "QmigError": "qmig.errors",
    "Rebuild": "qmig.legacy.rebuild",
    "Record": "qmig._wire",
    "RemoteProtocolError": "qmig.errors",
    "StreamState": "qmig.legacy.state",
    "Told": "qmig.legacy.connection",
    "TruncatedStream": "qmig.errors",
    "UnsupportedFeature": "qmig.errors",
    "Verifier": "qmig.legacy.verify",
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
