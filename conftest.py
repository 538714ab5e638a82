"""Options of our own tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sweep",
        choices=("sample", "full"),
        default="sample",
        help="cut recordings at a sample of record boundaries, or at every one (nightly)",
    )
