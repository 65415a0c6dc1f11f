"""The programs of a server are run without a password among their arguments, can be stopped, and tell why they fail."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from financial_agent.migrator.databases import Patience, Stopped, need_programs
from financial_agent.migrator.databases.server_tools import Tool, find, pipe, run, secret_file, version
from financial_agent.migrator.errors_server import ToolFailed, ToolMissing


def python(code: str, **environment: str) -> Tool:
    return Tool(sys.executable, ("-c", code), environment)


def failing(line: str) -> Tool:
    return python(f"import sys; print({line!r}, file=sys.stderr); sys.exit(1)")


def test_what_one_program_writes_another_reads() -> None:
    with TemporaryFile() as target:
        run(python("print('rows')"), Patience(), target=target)
        target.seek(0)
        assert target.read() == b"rows\n"
    pipe(python("print('x' * 1_000_000)"), python("import sys; assert len(sys.stdin.read()) == 1_000_001"), Patience())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("first\npsql: ERROR:  no such table\nDETAIL:  Key (name)=(Ada) is there", "psql: ERROR:  no such table"),
        (
            "ERROR 1062 (23000): Duplicate entry 'Ada' for key 'n'",
            "ERROR 1062 (23000): Duplicate entry '…' for key 'n'",
        ),
        ("", "it said nothing"),
    ],
)
def test_a_failure_tells_why_and_no_rows_content(said: str, told: str) -> None:
    with pytest.raises(ToolFailed) as failed:
        run(failing(said), Patience())
    assert failed.value.code == "FA452"
    assert failed.value.message.endswith(f" failed: {told}")


def test_a_reader_that_fails_is_told_of_before_the_writer_that_it_left_alone() -> None:
    endless = python("import sys\nwhile True: sys.stdout.write('x' * 1000)")
    with pytest.raises(ToolFailed, match="error: full"):
        pipe(endless, failing("error: full"), Patience())


def test_a_secret_of_the_environment_is_in_no_message() -> None:
    tool = python(
        "import os, sys; print('error: ' + os.environ['SECRET'], file=sys.stderr); sys.exit(1)", SECRET="p@ss"
    )
    with pytest.raises(ToolFailed) as failed:
        run(tool, Patience())
    assert failed.value.message.endswith(" failed: error: …")


def test_a_program_that_is_asked_to_stop_is_ended() -> None:
    with pytest.raises(Stopped):
        run(python("import time; time.sleep(600)"), Patience(stop=lambda _: True))


def test_a_program_that_is_not_installed_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissing) as missing:
        find(["pg_dump"], "postgresql-client")
    assert missing.value.code == "FA451"
    assert missing.value.message == "pg_dump is needed, and is not on PATH"
    assert missing.value.hint == "Install it: apt-get install postgresql-client, or what has it on this system"


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)", (15, 20)),
        ("mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)", (10, 11, 19)),
        ("mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)", (8, 0, 36)),
    ],
)
def test_a_program_tells_its_version(says: str, expected: tuple[int, ...], tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o700)
    assert version(str(program)) == expected


def test_a_secret_file_is_nobody_elses_and_gone_behind_its_use() -> None:
    with secret_file("password") as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() == "password"
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "program"), [("postgresql://db.example/chat", "pg_dump"), ("mysql://db.example/chat", "mariadb-dump")]
)
def test_what_backups_need_is_looked_for_without_asking_the_server(
    url: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_programs(url)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=program):
        need_programs(url)
    need_programs(str(tmp_path / "chat.db"))


def test_a_warning_does_not_hide_the_reason() -> None:
    with pytest.raises(ToolFailed, match="Access denied") as caught:
        run(failing("Warning: unknown variable 'loose-x=1'\nmariadb-dump: Got error: 1044: Access denied"), Patience())
    assert "loose" not in caught.value.message
