"""Real QEMU builds of several versions, side by side, from the distribution's packages.

    from qmig.builds import find, find_or_install, get, installed

    get("10.0")                         # fetch and unpack into the default prefix (no root needed)
    qemu = find("x86_64", "10.0")       # explicit path > prefix > PATH; None when there is none
    qemu.binary, qemu.version           # PosixPath('…/bin/qemu-system-x86_64-10.0'), '10.0.13'
    qemu = find_or_install("x86_64")    # whatever there is, else the distribution's own version

Nothing here touches the package database of the host: packages are downloaded with apt's own checks and
unpacked below the prefix (`$QMIG_BUILDS`, else ``~/.cache/qmig/builds``). Versions in an archive move on, so
every result says what was really got. All failures are `BuildError`.
"""

from qmig.builds.archive import BuildError as BuildError
from qmig.builds.install import find_or_install as find_or_install
from qmig.builds.install import get as get
from qmig.builds.store import Build as Build
from qmig.builds.store import Qemu as Qemu
from qmig.builds.store import default_prefix as default_prefix
from qmig.builds.store import find as find
from qmig.builds.store import installed as installed
from qmig.builds.store import probe as probe

__all__ = [
    "Build",
    "BuildError",
    "Qemu",
    "default_prefix",
    "find",
    "find_or_install",
    "get",
    "installed",
    "probe",
]
