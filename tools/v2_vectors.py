#!/usr/bin/env python3
"""Writes `spec/vectors/v2` (see `qmig.testing.handshake_vectors`). Run it with `.venv/bin/python`."""

from qmig.testing import spec_root
from qmig.testing.handshake_vectors import write

if __name__ == "__main__":
    for path in write(spec_root()):
        print(f"rewritten: {path}")
