"""What psql and mariadb send when they read a file: their judgement of where its statements end. They talk to a socket
that knows just enough of a server's protocol to agree to everything."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PATIENCE = 120  # seconds

Sent = list[tuple[str, str]]
"""Statements, each with the rows that were sent behind it."""


def sent_by_psql(text: str) -> Sent:
    """https://www.postgresql.org/docs/current/protocol-message-formats.html"""
    options = ["--no-psqlrc", "--quiet", "--username=nobody", "--dbname=none", "--file=-"]
    return _sent("psql", options, ".s.PGSQL.5432", "--host={folder}", text, _postgresql)


def sent_by_mariadb(text: str) -> Sent:
    """https://mariadb.com/kb/en/clientserver-protocol/"""
    options = ["--no-defaults", "--batch", "--force", "--default-character-set=utf8mb4"]
    found = _sent("mariadb", options, "s", "--socket={folder}/s", text, _mysql)
    return [each for each in found if each[0] != "select @@version_comment limit 1"]


def _sent(
    program: str, options: list[str], name: str, where: str, text: str, serve: Callable[[socket.socket, Sent], None]
) -> Sent:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    sent: Sent = []
    with TemporaryDirectory() as folder, closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(Path(folder, name)))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with closing(connection):
                serve(connection, sent)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        command = [program, *options, where.format(folder=folder)]
        subprocess.run(command, input=text.encode(), capture_output=True, timeout=PATIENCE, check=False)
        thread.join(PATIENCE)
    return sent


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := connection.recv(count - len(data))):
        data += part
    return data


def _postgresql(connection: socket.socket, sent: Sent) -> None:
    def reply(kind: bytes, body: bytes = b"") -> None:
        connection.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    (length,) = struct.unpack("!i", _read(connection, 4))
    _read(connection, length - 4)
    reply(b"R", struct.pack("!i", 0))
    for setting in (b"server_version\x0015.0\0", b"standard_conforming_strings\0on\0", b"client_encoding\0UTF8\0"):
        reply(b"S", setting)
    reply(b"Z", b"I")
    while kind := _read(connection, 1):
        body = _read(connection, struct.unpack("!i", _read(connection, 4))[0] - 4)
        if kind == b"Q":
            sent.append((body[:-1].decode(), ""))
            if re.search(r"\bFROM\s+stdin\b", sent[-1][0], re.IGNORECASE):
                reply(b"G", b"\0\0\0")
                continue
        elif kind == b"d":
            sent[-1] = (sent[-1][0], sent[-1][1] + body.decode())
            continue
        if kind in b"Qc":
            reply(b"C", b"DO\0")
            reply(b"Z", b"I")


def _mysql(connection: socket.socket, sent: Sent) -> None:
    def reply(number: int, body: bytes) -> None:
        connection.sendall(struct.pack("<i", len(body))[:3] + bytes([number]) + body)

    def packet() -> bytes:
        head = _read(connection, 4)
        return _read(connection, int.from_bytes(head[:3], "little")) if head else b""

    agreed = b"\0\0\0\x02\0\0\0"
    capabilities = 0x0008_8201  # the protocol of 4.1, with passwords as mysql_native_password has them
    low, high = struct.pack("<i", capabilities)[:2], struct.pack("<i", capabilities)[2:]
    greeting = b"\x0a5.5.5-10.11.0-MariaDB\0" + b"\1\0\0\0" + b"12345678\0" + low + b"\x2d\2\0" + high
    reply(0, greeting + b"\x15" + b"\0" * 10 + b"123456789012\0" + b"mysql_native_password\0")
    packet()
    reply(2, agreed)
    while body := packet():
        if body[:1] == b"\3":
            sent.append((body[1:].decode(), ""))
        if body[:1] == b"\1":
            return
        reply(1, agreed)
