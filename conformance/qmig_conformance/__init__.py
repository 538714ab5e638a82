"""The conformance suite: cases, targets and reports. Started with ``python -m qmig_conformance``."""
