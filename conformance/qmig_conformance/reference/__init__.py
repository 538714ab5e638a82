"""Reference targets: our own peers, played like any build, honest or with one seeded fault.

The suite is held to them (`qmig conformance self-check`): an honest peer passes, and a wrong one does not.
"""
