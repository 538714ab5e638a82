"""The specification as data: requirement ids, registries, generated parts and vectors.

Reads the files of `spec/` (see `qmig.testing.spec_root`). No part of the protocol code imports this
package; `qmig spec` and the tests do.
"""
