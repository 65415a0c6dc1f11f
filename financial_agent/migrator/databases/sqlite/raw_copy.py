"""The program of a child process: copies a file past every lock, and then, when told to, what has changed meanwhile.

    python -I -S raw_copy.py SOURCE TARGET

Says how many bytes of the source are behind it, a line each, and `ok` at the end of each of its two passes; the second
begins with a line on standard input. Ends when nobody listens any more, and with `failed ERRNO` when it cannot go on.
"""

from __future__ import annotations

import os
import sys

_CHUNK = 1 << 22  # bytes that are copied without a word
_BLOCK = 1 << 18  # bytes that are compared at once: more would not stay in the processor's cache


def main(source_path: str, target_path: str) -> None:
    try:
        source, target = os.open(source_path, os.O_RDONLY), os.open(target_path, os.O_RDWR)
        _copy(source, target)
        _say("ok")
        if sys.stdin.readline():
            _mend(source, target)
            _say("ok")
    except BrokenPipeError:
        pass  # who started it is gone
    except OSError as error:
        _say(f"failed {error.errno}")


def _copy(source: int, target: int) -> None:
    """Copy quickly, if the kernel can do it by itself. Who writes meanwhile may tear the copy."""
    done, size = 0, os.fstat(source).st_size
    try:
        while done < size and (count := os.copy_file_range(source, target, min(_CHUNK, size - done), done, done)):
            done += count
            _say(done)
    except (AttributeError, OSError):  # not on this system, or not between these two file systems
        _mend(source, target)


def _mend(source: int, target: int) -> None:
    """Make the target equal to the source: only the blocks that differ are written."""
    wanted, found = bytearray(_BLOCK), bytearray(_BLOCK)
    done = 0
    while count := os.preadv(source, [wanted], done):
        if os.preadv(target, [found], done) != count or wanted != found:
            _write(target, memoryview(wanted)[:count], done)
            found[:] = wanted  # a short last block leaves what stood behind it, which must not count
        done += count
        if done % _CHUNK == 0:
            _say(done)
    os.ftruncate(target, done)


def _write(target: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(target, data, at)
        data, at = data[count:], at + count


def _say(what: object) -> None:
    os.write(1, f"{what}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
