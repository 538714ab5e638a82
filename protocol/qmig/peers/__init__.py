"""Peers of a migration, and control of the QEMUs beside them. The only trio code besides `qmig.qmp` and the
command line.

    from qmig.peers import open_source, serve_destination, start_qemu
"""

from qmig.peers.address import parse_address
from qmig.peers.destination import Destination, MigrationFailed, serve_destination
from qmig.peers.qemu import QemuProcess, start_qemu
from qmig.peers.source import Outcome, open_source
from qmig.peers.tls import TlsCredentials

__all__ = [
    "Destination",
    "MigrationFailed",
    "Outcome",
    "QemuProcess",
    "TlsCredentials",
    "open_source",
    "parse_address",
    "serve_destination",
    "start_qemu",
]
