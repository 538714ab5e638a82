"""Addresses as QEMU writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig.peers.address import (
    Address,
    AddressError,
    ExecAddress,
    FdAddress,
    FileAddress,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    parse_address,
)

GOOD = {
    "tcp:host.example:4444": TcpAddress("host.example", 4444),
    "tcp::0": TcpAddress("", 0),
    "tcp:[::1]:65535": TcpAddress("::1", 65_535),
    "unix:/run/a b:c,d.sock": UnixAddress("/run/a b:c,d.sock"),
    "vsock:2:4294967295": VsockAddress(2, 4_294_967_295),
    "fd:7": FdAddress(7),
    "exec:gzip -c > x:y": ExecAddress("gzip -c > x:y"),
    "file:/tmp/a,b": FileAddress("/tmp/a,b"),
    "file:a,offset=0x1000": FileAddress("a", 4096),
    "file:a,offset=1M": FileAddress("a", 1 << 20),
    "file:a,offset=3k": FileAddress("a", 3072),
    "file:a,offset=12b": FileAddress("a", 12),
}
BAD = {
    "": "does not begin with one of tcp:, unix:",
    "tcp": "does not begin",
    "rdma:host:1": "does not begin",
    "unix:": "names nothing behind 'unix:'",
    "tcp:host": "has no port",
    "tcp:host:http": "port 'http' is no number from 0 to 65535",
    "tcp:host:65536": "port '65536' is no number",
    "tcp:host:+1": "port '+1' is no number",
    "tcp:::1:1": "stands in brackets: tcp:[::1]:1",
    "tcp:host:1,to=5": "options of a tcp address ('to=5') are not supported",
    "vsock:3": "has no port",
    "vsock:x:1": "cid 'x' is no number",
    "vsock:4294967296:1": "cid '4294967296' is no number",
    "fd:-1": "descriptor '-1' is no number",
    "fd:2147483648": "is no number",
    "file:,offset=1": "names no file",
    "file:a,offset=": "offset '' is no size",
    "file:a,offset=-1": "offset '-1' is no size",
    "file:a,offset=1X": "offset '1X' is no size",
    "file:a,offset=8E": "offset '8E' is no size below 8 EiB",
}


@pytest.mark.parametrize("text", GOOD)
def test_what_it_means(text: str) -> None:
    assert parse_address(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_with_it(text: str) -> None:
    with pytest.raises(AddressError) as problem:
        parse_address(text)
    assert BAD[text] in str(problem.value)


ports = st.integers(0, 65_535)
words = st.text(min_size=1).filter(lambda text: ",offset=" not in text)
addresses = st.one_of(
    st.builds(TcpAddress, st.sampled_from(["", "a.b", "10.0.0.1", "::", "fe80::1%eth0"]), ports),
    st.builds(UnixAddress, words),
    st.builds(VsockAddress, st.integers(0, (1 << 32) - 1), ports),
    st.builds(FdAddress, st.integers(0, 9999)),
    st.builds(ExecAddress, words),
    st.builds(FileAddress, words, st.integers(0, (1 << 63) - 1)),
)


@given(addresses)
def test_its_text_means_the_same_again(address: Address) -> None:
    assert parse_address(str(address)) == address
