"""Real QEMU builds for the tests that need one.

A test with an argument ``qemu`` runs once per x86_64 build of `$QMIG_BUILDS` (or the default prefix) and with
the one on PATH; ``qemu_arm`` likewise for aarch64. Where there is none, one skipped test says so.
"""

from pathlib import Path

import pytest
import trustme

from qmig.builds import BuildError, Qemu, installed
from qmig.builds.store import find_on_path

ARGUMENTS = {"qemu": "x86_64", "qemu_arm": "aarch64"}


def _builds(target: str) -> list[Qemu]:
    found = [build.qemu(target) for build in installed() if target in build.targets]
    on_path = find_on_path(target)
    return [*found, *([on_path] if on_path else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument in set(ARGUMENTS) & set(metafunc.fixturenames):
        target = ARGUMENTS[argument]
        try:
            builds = _builds(target)
            reason = (
                f"no qemu-system-{target}: neither in the builds' prefix (qmig builds get 10.0) nor on PATH"
            )
        except BuildError as problem:
            builds, reason = [], f"no working qemu-system-{target}: {problem}"
        if not builds:
            metafunc.parametrize(argument, [pytest.param(None, marks=pytest.mark.skip(reason=reason))])
            continue
        metafunc.parametrize(argument, builds, ids=[f"{build.found}-{build.version}" for build in builds])


@pytest.fixture(scope="session")
def x509(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as QEMU's ``tls-creds-x509`` wants it; the server is ``localhost``, 127.0.0.1."""
    folder = tmp_path_factory.mktemp("x509")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca-cert.pem")
    for side, names in [("server", ("localhost", "127.0.0.1")), ("client", ("client.invalid",))]:
        pair = authority.issue_cert(*names)
        pair.private_key_pem.write_to_path(folder / f"{side}-key.pem")
        for certificate in pair.cert_chain_pems:
            certificate.write_to_path(folder / f"{side}-cert.pem", append=True)
    return folder
