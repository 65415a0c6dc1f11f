"""Migrations in Python: one transaction with their record, on the engine's own connection, under the same guards."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from textwrap import dedent, indent

import pytest

from financial_agent.migrator import check, discovery, history, ledger, rehearsal, repair, rollback, runner, verify
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from financial_agent.migrator.errors import MigratorError, RecoveryRefused, RehearsalRefused
from financial_agent.migrator.errors_files import DirectiveInvalid, FileNameInvalid, PythonInvalid, VersionDuplicated
from financial_agent.migrator.errors_run import ForeignKeysViolated, PythonFailed, PythonForbidden, TransactionEnded
from financial_agent.migrator.events import Event, Waiting
from tests.helpers import Site, finish

ROOT = Path(__file__).resolve().parents[1]
FIRST = """\
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, first_name TEXT, last_name TEXT);
INSERT INTO customers (name) VALUES ('Ada Lovelace'), ('Charles Babbage'), ('Augustus De Morgan');
CREATE TABLE accounts (customer_id INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE);
INSERT INTO accounts VALUES (1), (1), (2);
"""
SPLIT = '''
"""Split the names."""
import sqlite3


def parts(name):
    return name.partition(" ")[::2]


def up(connection):
    connection.row_factory = sqlite3.Row
    for row in connection.execute("SELECT id, name FROM customers").fetchall():
        cursor = connection.cursor()
        change = "UPDATE customers SET first_name = ?, last_name = ? WHERE id = ?"
        cursor.execute(change, (*parts(row["name"]), row["id"]))


def down(connection):
    connection.execute("UPDATE customers SET first_name = NULL, last_name = NULL")
'''


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A database that an SQL migration has made."""
    site = Site(tmp_path, {"001_customers": FIRST})
    site.prepare()
    return site


def write(site: Site, body: str, name: str = "002_change.py", head: str = "") -> Path:
    """A Python migration whose `up` has this body."""
    path = site.directory / name
    path.write_text(f"{head}def up(connection):\n{indent(dedent(body).strip(), '    ')}\n")
    return path


def migrate(site: Site) -> list[str]:
    return [done.filename for done in runner.migrate(str(site.database), site.directory).done]


def dump(site: Site) -> list[str]:
    with closing(sqlite3.connect(site.database)) as connection:
        return [line for line in connection.iterdump() if "_migration" not in line and "sqlite_sequence" not in line]


# What it does.


def test_a_python_migration_changes_rows_is_recorded_and_can_be_undone(site: Site) -> None:
    (site.directory / "002_split.py").write_text(SPLIT)
    before = dump(site)
    outcome = runner.migrate(str(site.database), site.directory)
    assert [(done.filename, done.rows_changed) for done in outcome.done] == [("002_split.py", 3)]
    assert site.rows("SELECT first_name, last_name FROM customers ORDER BY id")[2] == ("Augustus", "De Morgan")
    (item,) = [item for item in runner.status(str(site.database), site.directory).items if item.version == 2]
    assert (item.state, item.reversible) == ("applied", True)
    assert rollback.rollback(str(site.database), site.directory).current == "001_customers.sql"
    assert dump(site) == before


def test_the_ledger_keeps_the_file_so_that_a_rollback_works_when_it_is_gone(site: Site) -> None:
    path = site.directory / "002_split.py"
    path.write_text(SPLIT)
    before = dump(site)
    migrate(site)
    path.unlink()
    rollback.rollback(str(site.database), site.directory)
    assert dump(site) == before


def test_a_traceback_of_what_the_ledger_keeps_has_its_lines(site: Site) -> None:
    path = write(site, "pass")
    path.write_text(path.read_text() + "\ndef down(connection):\n    return 1 / 0  # never\n")
    migrate(site)
    path.unlink()
    with pytest.raises(PythonFailed) as caught:
        rollback.rollback(str(site.database), site.directory)
    assert "  return 1 / 0  # never" in caught.value.fields["trace"]


def test_line_ends_and_a_byte_order_mark_change_nothing(site: Site) -> None:
    path = site.directory / "002_split.py"
    path.write_bytes(b"\xef\xbb\xbf" + SPLIT.replace("\n", "\r\n").encode())
    migrate(site)
    path.write_text(SPLIT)
    assert [item.state for item in runner.status(str(site.database), site.directory).items] == ["applied"] * 2


def test_everything_else_of_a_connection_works(site: Site) -> None:
    write(
        site,
        """
        connection.create_function("initial", 1, lambda text: text[:1])
        connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
        connection.executemany("INSERT INTO customers (name) VALUES (?)", (("x",) for _ in range(3)))
        cursor = connection.cursor()
        assert cursor.connection is connection
        cursor.executemany("UPDATE customers SET first_name = ? WHERE id = ?", [("a", 1), ("b", 2)])
        assert cursor.execute("SELECT initial(name) FROM customers WHERE id = 1").fetchone() == ("A",)
        names = [name for (name,) in connection.execute("SELECT name FROM customers ORDER BY name COLLATE backwards")]
        assert names == sorted(names, reverse=True)
        connection.text_factory = bytes
        assert connection.execute("SELECT 'x'").fetchone() == (b"x",)
        connection.text_factory = str
        assert connection.in_transaction and connection.total_changes >= 5
        assert any("INSERT" in line for line in connection.iterdump())
        assert connection.execute("SELECT count(*) FROM _migrations").fetchone() == (1,)
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, data BLOB)")
        connection.execute("INSERT INTO notes VALUES (1, zeroblob(3))")
        with connection.blobopen("notes", "data", 1) as blob:
            blob.write(b"abc")
        connection.execute("CREATE INDEX notes_by_data ON notes (data)")
        connection.execute("DROP INDEX notes_by_data")
        connection.execute("DROP TABLE notes")
        """,
    )
    assert migrate(site) == ["002_change.py"]


def test_what_it_sets_on_the_connection_ends_with_it(site: Site) -> None:
    write(
        site,
        """
        import sqlite3
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes
        connection.create_function("mine", 0, lambda: 1)
        connection.set_trace_callback(lambda sql: (_ for _ in ()).throw(RuntimeError))
        connection.execute("CREATE TEMP TABLE scratch (x)")
        connection.execute("PRAGMA recursive_triggers = ON")
        """,
    )
    body = """
        assert connection.row_factory is None
        assert connection.execute("SELECT 'x'").fetchone() == ("x",)
        assert connection.execute("PRAGMA recursive_triggers").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM temp.sqlite_schema").fetchone() == (0,)
        assert not connection.execute("SELECT 1 FROM pragma_function_list WHERE name = 'mine'").fetchall()
    """
    write(site, body, "003_look.py")
    assert migrate(site) == ["002_change.py", "003_look.py"]


def test_what_it_prints_goes_to_standard_error_and_leaves_json_alone(site: Site) -> None:
    write(site, "print('working on', 3)")
    finished = site.flask("migrate", "--json")
    assert "working on 3" in finished.stderr
    assert json.loads(finished.stdout)["ok"]


def test_foreign_keys_are_switched_off_and_checked_as_for_sql(site: Site) -> None:
    head = "# migrate:foreign_keys off\n"
    rebuild = """
        connection.execute("CREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT, first_name, last_name)")
        connection.execute("INSERT INTO new SELECT * FROM customers")
        connection.execute("DROP TABLE customers")
        connection.execute("ALTER TABLE new RENAME TO customers")
    """
    write(site, rebuild, head=head)
    assert migrate(site) == ["002_change.py"]
    assert site.value("SELECT count(*) FROM accounts") == 3
    write(site, "connection.execute('DELETE FROM customers WHERE id = 2')", "003_lose.py", head)
    with pytest.raises(ForeignKeysViolated):
        migrate(site)
    assert site.value("SELECT count(*) FROM customers") == 3


def test_a_cascade_runs_when_the_file_allows_it(site: Site) -> None:
    write(site, "connection.execute('DROP TABLE customers')", head="# migrate:allow cascade\n")
    migrate(site)
    assert site.tables() == {"accounts"}
    assert site.value("SELECT count(*) FROM accounts") == 0


def test_another_database_is_reached_when_the_file_allows_it(site: Site) -> None:
    other = site.root / "other.db"
    body = f"""
        connection.execute("ATTACH ? AS other", ({str(other)!r},))
        connection.execute("CREATE TABLE other.t AS SELECT 1 AS x")
    """
    write(site, body, head="# migrate:allow attach\n")
    with pytest.raises(RehearsalRefused):
        failure = rehearsal.migrate(str(site.database), site.directory).failure
        assert failure
        raise failure
    assert not other.exists()
    migrate(site)
    with closing(sqlite3.connect(other)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]


# What it may not do.

FORBIDDEN = [
    "connection.commit()",
    "connection.rollback()",
    "connection.close()",
    "connection.executescript('SELECT 1')",
    "connection.cursor().executescript('SELECT 1')",
    "connection.cursor().connection.commit()",
    "connection.execute('SELECT 1').connection.rollback()",
    "with connection: pass",
    "connection.isolation_level = 'DEFERRED'",
    "connection.autocommit = True",
    "connection.set_authorizer(None)",
    "connection.set_progress_handler(None, 0)",
    "connection.backup(None)",
    "connection.deserialize(connection.serialize())",
    "connection.execute('COMMIT')",
    "connection.execute('/* now */ end transaction')",
    "connection.cursor().execute('ROLLBACK')",
    "connection.execute('BEGIN')",
    "connection.execute('SAVEPOINT s')",
    "connection._watch.connection.commit()",
    "import sqlite3; sqlite3.Cursor.connection.__get__(connection.cursor()).rollback()",
    "import sqlite3; sqlite3.Cursor.connection.__get__(connection.cursor()).executescript('SELECT 1')",
    "connection.execute('DELETE FROM _migrations')",
    "connection.execute('UPDATE \"_MIGRATION_HISTORY\" SET note = 1')",
    "connection.execute('DROP TABLE _migrations')",
    "connection.execute('ALTER TABLE _migrations RENAME TO other')",
    "connection.execute('CREATE TRIGGER t AFTER INSERT ON _migrations BEGIN SELECT 1; END')",
    "connection.execute('CREATE INDEX i ON _migrations (checksum)')",
    "connection.executemany('INSERT INTO _migrations (filename) VALUES (?)', [('x',)])",
    "connection.blobopen('_migrations', 'up_sql', 1)",
    "connection.execute('ATTACH \":memory:\" AS other')",
    "connection.execute('DROP TABLE customers')",
    "connection.execute('PRAGMA foreign_keys = OFF')",
    "connection.execute('PRAGMA journal_mode = WAL')",
]


@pytest.mark.parametrize("swallowed", [False, True], ids=["", "swallowed"])
@pytest.mark.parametrize("line", FORBIDDEN)
def test_what_would_end_the_transaction_or_reach_the_ledger_fails_and_leaves_nothing(
    line: str, swallowed: bool, site: Site
) -> None:
    before = dump(site)
    body = f"try:\n    {line}\nexcept BaseException:\n    pass" if swallowed else line
    path = write(site, f"connection.execute('DELETE FROM accounts')\n{body}\nconnection.execute('CREATE TABLE t (x)')")
    with pytest.raises(PythonForbidden) as caught:
        migrate(site)
    location = caught.value.location
    assert location
    assert (location.path, location.line) == (str(path), 4 if swallowed else 3)
    assert dump(site) == before
    assert site.applied() == ["001_customers"]


def test_what_runs_behind_a_rolled_back_transaction_does_not_commit_by_itself(site: Site) -> None:
    before = dump(site)
    write(
        site,
        """
        connection.execute("CREATE TABLE t (x)")
        try:
            connection.execute("INSERT OR ROLLBACK INTO customers VALUES (1, 'x', 'y', 'z')")
        except Exception:
            pass
        for use in (connection, connection.cursor(), connection._watch.connection):
            try:
                use.execute("DELETE FROM accounts")
            except Exception:
                pass
        """,
    )
    with pytest.raises(TransactionEnded):
        migrate(site)
    assert dump(site) == before


@pytest.mark.parametrize(
    "line",
    [
        "raise ValueError('Ada Lovelace')",
        "import sys; sys.exit('Ada Lovelace')",
        "raise SystemExit(0)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "del connection, undefined",
        "assert connection.execute('SELECT 1').fetchone() == (2,), 'Ada Lovelace'",
        "connection.execute('SELEC 1')",
        "connection.execute('INSERT INTO customers VALUES (1, ?, 1, 1)', ('Ada Lovelace',))",
        "connection.isolation = 1",
        "from . import helpers",
        "(f := lambda: f())()",
    ],
)
def test_an_exception_undoes_everything_and_the_history_keeps_its_type_and_line_alone(line: str, site: Site) -> None:
    before = dump(site)
    write(site, f"connection.execute('DELETE FROM accounts')\n{line}")
    with pytest.raises(PythonFailed) as caught:
        migrate(site)
    assert caught.value.exit_code == 3
    assert not [each for each in caught.value.fields["trace"] if "migrator" in each]
    assert len(caught.value.fields["trace"]) < 40
    assert dump(site) == before
    (failure,) = [each for each in history.read(str(site.database)) if each.event == "failure"]
    assert re.fullmatch(r"FA312 002_change.py failed: \w+ \(002_change.py:3\)", failure.error or "")


@pytest.mark.parametrize(
    "left_open",
    [
        "connection.execute('INSERT INTO accounts SELECT id FROM customers RETURNING *')",
        "connection.blobopen('customers', 'name', 1)",
        "connection.cursor()",
    ],
)
def test_what_a_migration_leaves_open_does_not_keep_its_commit_waiting(left_open: str, site: Site) -> None:
    write(site, f"global kept\nkept = {left_open}\nhasattr(kept, 'fetchone') and kept.fetchone()")
    seen: list[Event] = []
    runner.migrate(str(site.database), site.directory, control=Control(report=seen.append))
    assert site.applied() == ["001_customers", "002_change.py"]
    assert not [event for event in seen if isinstance(event, Waiting)]


def test_a_file_whose_body_fails_changes_nothing(site: Site) -> None:
    before = dump(site)
    write(site, "pass", head="raise ImportError('no driver')\n")
    with pytest.raises(PythonFailed):
        migrate(site)
    assert dump(site) == before


def test_reading_and_asking_never_run_the_file(site: Site) -> None:
    sentinel = site.root / "ran"
    write(site, "pass", head=f"open({str(sentinel)!r}, 'w').close()\n")
    runner.status(str(site.database), site.directory)
    runner.pending(str(site.database), site.directory)
    discovery.discover(site.directory, "sqlite")
    assert not sentinel.exists()
    migrate(site)
    sentinel.unlink()
    verify.verify(str(site.database), site.directory, control=Control())
    site.do("DROP TABLE _migrations", "DROP TABLE _migration_history")
    with pytest.raises(RecoveryRefused, match="it is Python"):
        migrate(site)
    assert not sentinel.exists()


# Signals.

BUSY = {
    "in pure Python": "while True:\n        pass",
    "asleep": "import time\n    time.sleep(600)",
    "in SQL": (
        "connection.execute('WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
        " SELECT count(*) FROM c').fetchall()"
    ),
    "in SQL, and swallows": (
        "try:\n        connection.execute('WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
        " SELECT count(*) FROM c').fetchall()\n    except BaseException:\n        pass"
    ),
    "asleep, and swallows": "import time\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass",
}


@pytest.mark.parametrize(
    ("body", "number"),
    [(body, (signal.SIGINT, signal.SIGTERM)[at % 2]) for at, body in enumerate(BUSY.values())],
    ids=BUSY,
)
def test_a_signal_stops_it_wherever_it_is_and_nothing_remains(body: str, number: signal.Signals, site: Site) -> None:
    before = dump(site)
    path = site.directory / "002_busy.py"
    path.write_text(
        "import sys\n\n\ndef up(connection):\n    connection.execute('DELETE FROM accounts')\n"
        f"    print('here', file=sys.stderr, flush=True)\n    {body}\n"
    )
    with site.migrating() as process:
        assert process.stderr
        assert process.stderr.readline() == "here\n"
        time.sleep(0.05)
        process.send_signal(number)
        finished = finish(process)
    assert finished.returncode == 128 + number
    assert "interrupted while 002_busy.py was running" in finished.stderr
    assert dump(site) == before
    assert site.applied() == ["001_customers"]


def test_a_handler_of_signals_is_as_before_when_it_has_run(site: Site) -> None:
    write(site, "pass")
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        handler = signal.getsignal(signal.SIGTERM)
        migrate(site)
        assert signal.getsignal(signal.SIGTERM) is handler
        write(site, "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "003_signal.py")
        assert migrate(site) == ["003_signal.py"]  # nobody asked the run to stop
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_killed_process_leaves_nothing_and_the_next_run_completes(site: Site) -> None:
    before = dump(site)
    write(site, "import os\nconnection.execute('DELETE FROM accounts')\nos.kill(os.getpid(), 9)")
    assert site.migrate().returncode == -9
    assert dump(site) == before
    write(site, "connection.execute('DELETE FROM accounts')")
    assert migrate(site) == ["002_change.py"]


# Looking at it.


def test_a_rehearsal_runs_it_on_a_copy_and_measures_every_table(site: Site) -> None:
    (site.directory / "002_split.py").write_text(SPLIT)
    before = dump(site)
    (step,) = rehearsal.migrate(str(site.database), site.directory).steps
    assert [(change.table, change.updated) for change in step.rows] == [("customers", 3)]
    assert step.way_back
    assert step.way_back.is_complete
    assert dump(site) == before


def test_a_backup_comes_first_because_nobody_knows_what_it_destroys(site: Site) -> None:
    write(site, "pass")
    found = site.flask("migrate", "--json")
    assert Path(json.loads(found.stdout)["backup"]).is_file()


def findings(site: Site) -> tuple[list[str], tuple[str, ...]]:
    report = verify.verify(str(site.database), site.directory, control=Control())
    return [finding.kind for finding in report.findings], report.notes


def test_verify_passes_over_what_left_the_schema_alone_and_still_finds_drift(site: Site) -> None:
    (site.directory / "002_split.py").write_text(SPLIT)
    site.write({"003_more": "CREATE TABLE more (id INTEGER PRIMARY KEY);"})
    migrate(site)
    assert findings(site) == ([], ())
    site.do("CREATE TABLE stray (x)")
    assert findings(site) == (["drift"], ())


def test_verify_compares_fingerprints_when_python_changed_the_schema(site: Site) -> None:
    write(site, "connection.execute('CREATE TABLE made (x)')")
    migrate(site)
    kinds, (note,) = findings(site)
    assert kinds == []
    assert "002_change.py cannot be replayed: it is Python" in note
    site.do("CREATE TABLE stray (x)")
    assert findings(site)[0] == ["drift"]


def test_what_was_only_recorded_is_not_taken_for_what_left_the_schema_alone(site: Site) -> None:
    site.do("DROP TABLE _migrations", "DROP TABLE _migration_history", "CREATE TABLE made (x)")
    write(site, "connection.execute('CREATE TABLE made (x)')")
    repair.baseline(str(site.database), site.directory, None, Control())
    with closing(connect(str(site.database))) as db:
        assert ledger.schema_kept(db) == {"002_change.py"}
    assert findings(site)[0] == []


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        (SPLIT.replace("import sqlite3", "import sqlite3  # for Row"), "only comments or white space differ"),
        (SPLIT.replace("first_name = NULL", "first_name = ''"), "its down section differs"),
        (SPLIT.replace('partition(" ")', 'rpartition(" ")'), "its statements are not those that ran"),
        ("def up(:\n", "it is no migration any more"),
    ],
)
def test_verify_tells_what_was_edited_and_repair_accepts_it(edited: str, says: str, site: Site) -> None:
    path = site.directory / "002_split.py"
    path.write_text(SPLIT)
    migrate(site)
    path.write_text(edited)
    report = verify.verify(str(site.database), site.directory, control=Control())
    (finding,) = report.findings
    assert says in finding.message
    changed = [line for line in finding.diff[2:] if line[0] in "+-"]
    assert set(changed) <= {f"-{line}" for line in SPLIT.split("\n")} | {f"+{line}" for line in edited.split("\n")}
    if "any more" not in says:
        repair.repair(str(site.database), site.directory, "2", "a typo", Control())
        assert findings(site)[0] == []


def test_lines_that_python_alone_would_count_are_refused(site: Site) -> None:
    text = '"""Why."""\n# A note.\r\r\ndef up(a, b):\r    pass\r'
    (site.directory / "002_change.py").write_bytes(text.encode())
    with pytest.raises(PythonInvalid, match="carriage return stands without a line feed") as caught:
        migrate(site)
    assert caught.value.location is not None
    assert caught.value.location.line == 2


@pytest.mark.parametrize("directive", ["assert SELECT 1 = 1", "batch 10", "rebuild customers", "copy a = b"])
def test_what_is_said_of_sql_statements_is_refused_in_a_python_file(directive: str, site: Site) -> None:
    write(site, "pass", head=f"# migrate:{directive}\n")
    with pytest.raises(DirectiveInvalid, match=r"migrate:\w+ is for the statements of an SQL file"):
        migrate(site)


# Names.


def test_a_python_file_and_an_sql_file_with_one_number_are_refused(site: Site) -> None:
    write(site, "pass", "001_customers.py")
    with pytest.raises(VersionDuplicated):
        migrate(site)


@pytest.mark.parametrize("name", ["002-change.py", "002.py", "002_change.PY", "002_a.oracle.py", "2change.py"])
def test_a_name_that_is_nearly_one_is_refused(name: str, site: Site) -> None:
    write(site, "pass", name)
    with pytest.raises(FileNameInvalid):
        migrate(site)


@pytest.mark.parametrize("name", ["run_migrations.py", "__init__.py", "conftest.py", "_002_change.py", "002_x.pyc"])
def test_other_python_files_stand_beside_the_migrations(name: str, site: Site) -> None:
    write(site, "pass", name)
    assert migrate(site) == []


def test_a_variant_for_the_engine_takes_the_place_of_the_plain_file(site: Site) -> None:
    write(site, "raise RuntimeError")
    write(site, "pass", "002_change.sqlite.py")
    write(site, "raise RuntimeError", "002_change.postgresql.py")
    assert migrate(site) == ["002_change.py"]


@pytest.mark.parametrize("target", ["2", "change", "002_change", "002_change.py"])
def test_a_target_names_it_as_any_other(target: str, site: Site) -> None:
    write(site, "pass")
    write(site, "pass", "003_other.py")
    assert runner.migrate(str(site.database), site.directory, target=target).current == "002_change.py"


def test_a_new_file_for_python_is_a_migration_that_does_not_run_by_accident(site: Site) -> None:
    finished = site.flask("new", "split names", "--python")
    assert finished.stdout.strip() == str(site.directory / "002_split_names.py")
    with pytest.raises(PythonFailed, match="NotImplementedError"):
        migrate(site)
    assert site.flask("renumber", "2").returncode == 4  # it is the newest already


def test_a_directive_in_a_string_is_none(site: Site) -> None:
    write(site, "pass", head='"""Not one:\n# migrate:sometimes\n"""\n# migrate:out-of-order allow\n')
    assert migrate(site) == ["002_change.py"]


def test_a_file_may_run_out_of_order_when_it_says_so(site: Site) -> None:
    site.write({"003_last": "SELECT 1;"})
    migrate(site)
    write(site, "pass", head="# migrate:out-of-order allow\n")
    assert migrate(site) == ["002_change.py"]


def test_the_example_of_the_documents_splits_names(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "migrations.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def up" in block]
    table = "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, family_name TEXT);"
    site = Site(tmp_path, {"001_customers": f"{table}INSERT INTO customers (name) VALUES ('Ada Lovelace'), ('Plato');"})
    (site.directory / "002_split_names.py").write_text(example)
    migrate(site)
    assert site.rows("SELECT family_name FROM customers ORDER BY id") == [("Lovelace",), (None,)]
    rollback.rollback(str(site.database), site.directory)
    assert site.rows("SELECT DISTINCT family_name FROM customers") == [(None,)]


def test_check_reads_its_docstring_and_its_directives_not_its_text_as_sql(site: Site) -> None:
    head = '"""It\'s why a customer doesn\'t lose a name."""\n# migrate:ignore FA660 the old names are not kept\n'
    write(site, "connection.execute('UPDATE customers SET first_name = name')", head=head)
    found = check.check(site.directory, control=Control()).findings
    assert "FA660" in {each.code for each in found if each.filename == "001_customers.sql"}
    assert not [each for each in found if each.filename == "002_change.py"]


def test_what_it_requires_and_where_it_is_for_is_read_as_in_sql(site: Site) -> None:
    write(site, "pass", head="# migrate:requires 3\n")
    write(site, "pass", "003_first.py")
    write(site, "pass", "004_staging.py", "# migrate:environments staging\n")
    assert migrate(site) == ["003_first.py", "002_change.py"]
    (site.directory / "002_change.py").unlink()
    with pytest.raises(MigratorError, match="002_change"):
        rollback.rollback(str(site.database), site.directory, to="2")
