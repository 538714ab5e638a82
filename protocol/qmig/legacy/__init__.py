"""QEMU's present wire format."""
