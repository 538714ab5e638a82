"""Peers of a migration, and control of the QEMUs beside them. The only trio code besides `qmig.qmp` and the
command line."""
