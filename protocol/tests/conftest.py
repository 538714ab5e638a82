"""Real QEMU builds for the tests that need one.

A test with an argument ``qemu`` runs once per x86_64 build of `$QMIG_BUILDS` (or the default prefix) and with
the one on PATH; ``qemu_arm`` likewise for aarch64. Where there is none, one skipped test says so.
A module with a `ROLE` plays scenarios (``tests/live``): its tests have an argument ``scenario``, and
``played`` runs one.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trustme

from qmig.builds import BuildError, Qemu, installed
from qmig.builds.store import find_on_path
from qmig.peers.qemu import QemuDied
from qmig.testing.leaks import Held
from qmig.testing.scenario import Role, Scenario, Unsupported
from qmig.testing.scenarios import select

#: A watchdog, not a verdict.
WATCHDOG = 90

Play = Callable[[Qemu, Scenario, Path, Path], Awaitable[None]]

ARGUMENTS = {"qemu": "x86_64", "qemu_arm": "aarch64"}


def _builds(target: str) -> list[Qemu]:
    found = [build.qemu(target) for build in installed() if target in build.targets]
    on_path = find_on_path(target)
    return [*found, *([on_path] if on_path else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scenario" in metafunc.fixturenames:
        _parametrize_scenarios(metafunc)
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


def _parametrize_scenarios(metafunc: pytest.Metafunc) -> None:
    """Each scenario that the module's role can play with the builds' target; `live` but for the quick
    ones."""
    target = "aarch64" if "qemu_arm" in metafunc.fixturenames else "x86_64"
    role: Role = metafunc.module.ROLE
    metafunc.parametrize(
        "scenario",
        [
            pytest.param(found, id=found.name, marks=() if found.quick else pytest.mark.live)
            for found in select(role=role, target=target)
        ],
    )


@pytest.fixture
def played(
    request: pytest.FixtureRequest, x509: Path, tmp_path: Path
) -> Iterator[Callable[[Play, Qemu, Scenario], None]]:
    """Runs a play; says why a build cannot; leaves no descriptor, process or thread."""

    def run(play: Play, qemu: Qemu, scenario: Scenario) -> None:
        role: Role | None = getattr(request.module, "ROLE", None)  # other plays are not in the table
        if role is not None:
            played = (role.value, scenario.name, scenario.target, qemu.version)
            request.node.user_properties.append(("live", played))

        async def watched() -> None:
            with trio.fail_after(WATCHDOG):
                await play(qemu, scenario, x509, tmp_path)

        try:
            trio.run(watched)
        except Unsupported as reason:
            pytest.skip(f"QEMU {qemu.version}: {reason}")
        except QemuDied as death:
            # A build that breaks its own assertion is no peer for anybody (design/decisions.md, 17).
            if broken := re.search(r"\S+: Assertion `.*' failed", death.output):
                pytest.skip(f"QEMU {qemu.version} crashes by itself: {broken[0]}")
            raise

    before = Held.now()
    yield run
    assert Held.now() == before
