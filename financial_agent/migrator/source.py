"""Where a script's text comes from: a migration file, or the copy that the ledger keeps.

Byte order mark and CRLF are normalised before anything else looks at the text, so that the same checksum
always means the same effect, whichever way git checked the file out.
"""

from __future__ import annotations

import codecs
import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import EncodingInvalid, FileChanged, FileUnreadable, NulByte

CHUNK = 1 << 20  # bytes


class Source(Protocol):
    @property
    def name(self) -> str: ...

    def chunks(self) -> Iterator[str]:
        """The text, in pieces."""


@dataclass(frozen=True)
class StoredSource:
    """Text that is at hand: a down section as the ledger keeps it."""

    name: str
    text: str

    def chunks(self) -> Iterator[str]:
        yield self.text


@dataclass(frozen=True)
class FileSource:
    """A file whose text must still be the one with this checksum (SHA-256 in hexadecimal)."""

    path: Path
    checksum: str

    @property
    def name(self) -> str:
        return str(self.path)

    def chunks(self) -> Iterator[str]:
        """The text in pieces of a megabyte. The last one is handed out only after the checksum was found equal,
        so nothing of an ordinary file runs when it has changed since it was parsed. Raises FileChanged."""
        digest = hashlib.sha256()
        last = ""
        for text in decode(hashed(normalised(self.path), digest), self.name):
            if last:
                yield last
            last = text
        if digest.hexdigest() != self.checksum:
            raise FileChanged(name=self.name)
        yield last


def checksum(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file's normalised bytes. Raises FileUnreadable."""
    digest = hashlib.sha256()
    for _ in hashed(normalised(path), digest):
        pass
    return digest.hexdigest()


def hashed(chunks: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    """The same chunks, each added to the digest on its way."""
    for data in chunks:
        digest.update(data)
        yield data


def normalised(path: Path) -> Iterator[bytes]:
    """A file's bytes without byte order mark and with LF for CRLF; a lone CR stays. Raises FileUnreadable."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(CHUNK).removeprefix(codecs.BOM_UTF8)
            while data:
                ahead = file.read(CHUNK)
                if ahead and data.endswith(b"\r"):  # a pair may be cut in two
                    data, ahead = data[:-1], b"\r" + ahead
                yield data.replace(b"\r\n", b"\n")
                data = ahead
    except OSError as error:
        raise FileUnreadable(name=path, cause=error.strerror, fix=f"ls -l {shlex.quote(str(path))}") from error


def decode(chunks: Iterator[bytes], name: str) -> Iterator[str]:
    """Bytes as UTF-8 text. Raises EncodingInvalid and NulByte, with the line."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    for data in chunks:
        try:
            text = decoder.decode(data)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            found = f"byte 0x{error.object[error.start]:02X}"
            raise EncodingInvalid(location=Location(name, line), cause=found) from None
        if "\0" in text:
            raise NulByte(location=Location(name, line + text.count("\n", 0, text.index("\0"))))
        line += text.count("\n")
        yield text
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise EncodingInvalid(location=Location(name, line), cause="it ends inside a character") from None
