"""Writes in a thread: what was written is there, in order, and errors come out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmig.cli.writer import AHEAD, SIZE, Writer


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_all_is_there_after_settle(file: int) -> None:
    writer = Writer()
    for number in range(10 * AHEAD):
        writer.write(file, number * 3, [b"ab", memoryview(bytes([number]))])
    writer.settle()
    expected = b"".join(b"ab" + bytes([number]) for number in range(10 * AHEAD))
    assert os.pread(file, 1000, 0) == expected
    writer.close()


def test_a_later_write_wins(file: int) -> None:
    writer = Writer()
    for number in range(50):
        writer.write(file, 0, [bytes([number]) * 4096])
    writer.close()
    assert os.pread(file, 5000, 0) == bytes([49]) * 4096


def test_more_than_a_buffer_holds_is_written_in_its_turn(file: int) -> None:
    writer = Writer()
    writer.write(file, 0, [b"first"])
    writer.write(file, 0, [b"x" * SIZE, b"y"])
    writer.settle()
    assert os.pread(file, SIZE + 10, 0) == b"x" * SIZE + b"y"
    writer.close()


def test_an_error_comes_out_once_and_ends_what_follows(file: int, tmp_path: Path) -> None:
    readable = os.open(tmp_path / "f", os.O_RDONLY)
    writer = Writer()
    writer.write(readable, 0, [b"x"])
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.settle()
    writer.write(file, 0, [b"fine"])
    writer.close()
    assert os.pread(file, 10, 0) == b"fine"
    os.close(readable)


def test_no_thread_stays(file: int) -> None:
    before = threading.active_count()
    writer = Writer()
    writer.settle()
    writer.close()
    writer.write(file, 0, [b"x"])
    assert threading.active_count() == before + 1
    writer.close()
    writer.close()
    assert threading.active_count() == before
    writer.write(file, 0, [b"y"])  # and can be used again
    writer.close()
    assert os.pread(file, 10, 0) == b"y"
