"""Options of our own tests."""

import os

import pytest
from hypothesis import settings

# Neither a clock nor chance decides whether a run is green: how long an example takes says something of the
# machine only. `HYPOTHESIS_PROFILE=nightly` looks for new examples.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sweep",
        choices=("sample", "full"),
        default="sample",
        help="cut recordings at a sample of record boundaries, or at every one (nightly)",
    )
