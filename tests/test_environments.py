"""Environments: which files are for one, which one a database belongs to, and that nobody changes another's."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from financial_agent import config, create_app
from financial_agent.migrator import heads, ledger, rehearsal, rollback, runner, session
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from financial_agent.migrator.discovery import DIALECTS, discover
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import (
    ConfigurationInvalid,
    EnvironmentDiffers,
    EnvironmentMissing,
    MigrationsPending,
    OutOfOrder,
)
from financial_agent.startup import prepare
from tests.helpers import PLAIN, ROOT, Finished, Site, finish, run, snapshot, started

A, B, C = "CREATE TABLE a (x);", "CREATE TABLE b (x);", "CREATE TABLE c (x);"
DOWN = "-- migrate:up\n{}\n-- migrate:down\nSELECT 1;\n"
STAGING, PRODUCTION, DEVELOPMENT = Environment("staging"), Environment("production"), Environment("development")
NONE = Environment()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The second of three is for two environments only."""
    for_two = f"-- migrate:environments development\n-- migrate:environments staging\n{B}"
    return Site(tmp_path / "site", {"001_a": DOWN.format(A), "002_b": for_two, "003_c": DOWN.format(C)})


def migrate(site: Site, environment: Environment, **more: Any) -> runner.Outcome:
    return runner.migrate(str(site.database), site.directory, environment=environment, **more)


def stamp(site: Site) -> str | None:
    return session.recorded(str(site.database), Control()).stamp


def status(site: Site, *words: str) -> Any:
    finished = site.flask("status", "--json", *words)
    assert finished.returncode in (0, 1), finished.stderr
    return json.loads(finished.stdout)


def states(site: Site, *words: str) -> list[str]:
    return [item["state"] for item in status(site, *words)["migrations"]]


# Which files are for it.


@pytest.mark.parametrize("environment", [STAGING, DEVELOPMENT])
def test_a_file_runs_in_the_environments_that_it_names(site: Site, environment: Environment) -> None:
    migrate(site, environment)
    assert site.applied() == ["001_a", "002_b", "003_c"]


@pytest.mark.parametrize("environment", [PRODUCTION, NONE, Environment("Staging"), Environment("stag")])
def test_a_file_is_skipped_everywhere_else_and_where_none_is_configured(site: Site, environment: Environment) -> None:
    outcome = migrate(site, environment)
    assert site.applied() == ["001_a", "003_c"]
    assert outcome.pending == 0


def test_what_is_skipped_is_shown_with_its_environments_and_is_pending_for_nothing(site: Site) -> None:
    migrate(site, PRODUCTION)
    options = ["--environment", "production"]
    shown = site.flask("status", "--exit-code", *options)
    assert shown.returncode == 0
    assert re.search(r"^002_b +skipped, for development and staging$", shown.stdout, re.MULTILINE)
    assert shown.stdout.endswith("2 applied, 0 pending, 1 skipped.\n")
    item = status(site, *options)["migrations"][1]
    assert (item["state"], item["environments"]) == ("skipped", ["development", "staging"])
    assert runner.pending(str(site.database), site.directory, "production") == []
    assert [each.version for each in runner.pending(str(site.database), site.directory, "staging")] == [2]


def test_a_late_file_for_another_environment_is_not_out_of_order(site: Site) -> None:
    migrate(site, NONE)
    assert "out of order" not in site.flask("status").stdout
    site.write({"004_d": "CREATE TABLE d (x);"})
    migrate(site, NONE)
    assert site.applied() == ["001_a", "003_c", "004_d"]


def test_what_is_undone_and_for_another_environment_is_not_counted_as_pending(site: Site) -> None:
    migrate(site, STAGING)
    change = Environment("production", change=True)
    outcome = rollback.rollback(str(site.database), site.directory, environment=change)
    assert [done.filename for done in outcome.done] == ["003_c.sql"]
    assert outcome.pending == 1


def test_a_file_that_cannot_be_read_is_not_taken_for_skipped(site: Site) -> None:
    site.write({"002_b": f"-- migrate:environments stag!ng\n{B}"})
    assert states(site) == ["pending", "pending", "pending"]
    assert site.migrate().returncode == 4


def test_neither_a_baseline_nor_a_recovery_records_what_is_skipped(site: Site) -> None:
    migrate(site, NONE)
    site.do("DROP TABLE _migrations", "DROP TABLE _migration_history")
    migrate(site, NONE)
    assert site.applied() == ["001_a", "003_c"]
    site.do("DROP TABLE _migrations", "DROP TABLE _migration_history")
    assert site.flask("baseline", "3").returncode == 0
    assert site.applied() == ["001_a", "003_c"]


def test_verify_finds_what_is_applied_and_not_for_this_environment(site: Site) -> None:
    migrate(site, STAGING)
    assert site.flask("verify", "--environment", "staging").returncode == 0
    finished = site.flask("verify", "--environment", "production")
    assert finished.returncode == 1
    assert "Environment: staging (the configuration says production)\n" in finished.stdout
    assert (
        "excluded: 002_b.sql: it is applied, and is for development and staging alone, and this is production\n"
        in finished.stdout
    )
    found = json.loads(site.flask("verify", "--json").stdout)
    assert [(each["kind"], each["filename"]) for each in found["findings"]] == [("excluded", "002_b.sql")]
    assert found["environment"] == {"database": "staging", "configured": None}


def test_the_example_of_the_documents_runs_where_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "migrations.md").read_text()
    (example,) = re.findall(r"```sql\n(-- Rows to try .*?)```", page, re.DOTALL)
    site = Site(tmp_path / "site", {"001_chat": "CREATE TABLE conversations (session_id);", "002_demo": example})
    migrate(site, NONE)
    assert site.value("SELECT count(*) FROM conversations") == 0
    migrate(site, STAGING)
    assert site.value("SELECT count(*) FROM conversations") == 1


# Which one it is.


@pytest.mark.parametrize(("value", "name"), [(None, None), ("qa-2", "qa-2"), (7, "7"), ("A_b", "A_b")])
def test_a_setting_names_an_environment(value: object, name: str | None) -> None:
    assert config.environment(value) == name


@pytest.mark.parametrize("value", ["", " ", "a b", "a,b", "é", "a\n", True, 1.5, ["a"], b"a"])
def test_anything_else_is_no_environment(value: object) -> None:
    with pytest.raises(ConfigurationInvalid):
        config.environment(value)


@pytest.mark.parametrize("command", ["status", "migrate", "verify", "doctor", "history", "new"])
def test_every_command_takes_the_option(command: str, site: Site) -> None:
    words = ["x"] if command == "new" else []
    site.prepare()
    assert site.flask(command, *words, "--environment", "no name").returncode == 2
    assert site.flask(command, *words, "--environment", "production").returncode in (0, 1)


def test_the_plain_runner_takes_it_from_the_option_and_from_the_setting(site: Site) -> None:
    plain = run([*PLAIN, *site.options(), "--environment", "staging"], site.root)
    assert plain.returncode == 0
    assert stamp(site) == "staging"
    command = [sys.executable, PLAIN[1], *site.options()]
    env = {"PATH": "/usr/bin", "FINANCIAL_AGENT_ENVIRONMENT": "production"}
    refused = subprocess.run(command, env=env, cwd=site.root, capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "Error FA418" in refused.stderr


# Which one a database belongs to.


def test_the_first_run_with_an_environment_stamps_the_database(site: Site) -> None:
    site.flask("migrate", "1")
    assert stamp(site) is None
    migrate(site, STAGING)
    assert stamp(site) == "staging"
    rows = site.rows("SELECT event, filename, environment FROM _migration_history ORDER BY id")
    assert rows == [
        ("apply", "001_a.sql", None),
        ("environment", "", "staging"),
        ("apply", "002_b.sql", "staging"),
        ("apply", "003_c.sql", "staging"),
    ]
    assert status(site)["environment"] == {"database": "staging", "configured": None}
    assert "Environment: staging (none is configured)\n" in site.flask("status").stdout
    assert json.loads(site.flask("verify", "--json", "--environment", "staging").stdout)["findings"] == []


def test_nothing_to_do_writes_nothing(site: Site) -> None:
    migrate(site, NONE)
    before = snapshot(site.data)
    migrate(site, PRODUCTION)
    rollback.rollback(str(site.database), site.directory, to="3", environment=PRODUCTION)
    assert snapshot(site.data) == before
    assert stamp(site) is None


def test_a_refused_first_run_stamps_nothing(site: Site) -> None:
    migrate(site, NONE)
    site.write({"000_late": B})
    with pytest.raises(OutOfOrder):
        migrate(site, STAGING)
    assert stamp(site) is None


@pytest.fixture
def stamped(site: Site) -> Site:
    """It belongs to production, and one migration is pending."""
    migrate(site, PRODUCTION, target="1")
    return site


Act = Callable[[Site, Environment], object]
POLICY = Policy("never", Path("backups"), 10)
WRITING: dict[str, Act] = {
    "migrate": migrate,
    "migrate-nothing": lambda site, environment: migrate(site, environment, target="1"),
    "migrate-dry-run": lambda site, environment: rehearsal.migrate(
        str(site.database), site.directory, environment=environment
    ),
    "rollback": lambda site, environment: rollback.rollback(
        str(site.database), site.directory, environment=environment
    ),
    "rollback-dry-run": lambda site, environment: rehearsal.roll_back(
        str(site.database), site.directory, environment=environment
    ),
    "check": lambda site, environment: prepare(app_of(site, environment, "check")),
    "startup": lambda site, environment: prepare(app_of(site, environment, True)),
}


def app_of(site: Site, environment: Environment, on_startup: object) -> Any:
    settings = {"DATABASE": str(site.database), "MIGRATIONS": str(site.directory), "ENVIRONMENT": environment.name}
    return create_app({"TESTING": True, "MIGRATE_ON_STARTUP": on_startup, **settings})


@pytest.mark.parametrize("environment", [DEVELOPMENT, NONE], ids=["another", "none"])
@pytest.mark.parametrize("act", WRITING)
def test_no_run_touches_a_database_of_another_environment(act: str, environment: Environment, stamped: Site) -> None:
    before = snapshot(stamped.data)
    with pytest.raises(EnvironmentDiffers):
        WRITING[act](stamped, environment)
    assert snapshot(stamped.data) == before


@pytest.mark.parametrize("words", [["baseline", "1"], ["repair", "1", "--reason", "x"], ["rollback"], ["upgrade"]])
def test_no_command_touches_a_database_of_another_environment(words: list[str], stamped: Site) -> None:
    before = snapshot(stamped.data)
    finished = stamped.flask(*words, "--environment", "development")
    assert finished.returncode == 4
    assert "Error FA418" in finished.stderr
    assert snapshot(stamped.data) == before


def test_the_environment_is_looked_at_under_the_lock_as_well(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run stamps the database while this one waits for its turn."""
    look = session.look

    def slowly(*arguments: Any) -> Any:
        found = look(*arguments)
        monkeypatch.setattr(session, "look", look)
        migrate(site, PRODUCTION, target="1")
        return found

    monkeypatch.setattr(session, "look", slowly)
    with pytest.raises(EnvironmentDiffers):
        migrate(site, DEVELOPMENT)
    assert (stamp(site), site.applied()) == ("production", ["001_a"])


def test_questions_are_answered_whatever_is_configured(stamped: Site) -> None:
    for words in (["status"], ["history"], ["verify"], ["backups"]):
        assert stamped.flask(*words, "--environment", "development").returncode == 0, words


def test_doctor_tells_which_environment_it_is_and_fails_for_another(stamped: Site) -> None:
    finished = stamped.flask("doctor", "--environment", "production")
    assert finished.returncode == 0
    assert "ok    environment: production\n" in finished.stdout
    finished = stamped.flask("doctor", "--environment", "development")
    assert finished.returncode == 1
    assert "fail  environment: FA418 " in finished.stdout


def test_a_served_application_that_checks_knows_its_environment(stamped: Site) -> None:
    with pytest.raises(MigrationsPending):
        prepare(app_of(stamped, PRODUCTION, "check"))
    migrate(stamped, PRODUCTION)
    prepare(app_of(stamped, PRODUCTION, "check"))
    client = app_of(stamped, PRODUCTION, False).test_client()
    assert client.get("/readyz").status_code == 200


def test_told_to_change_it_does_and_the_history_says_so(stamped: Site) -> None:
    finished = stamped.flask("migrate", "--environment", "staging", "--change-environment")
    assert finished.returncode == 0, finished.stderr
    assert stamp(stamped) == "staging"
    assert stamped.applied() == ["001_a", "002_b", "003_c"]
    changes = stamped.rows("SELECT environment, note FROM _migration_history WHERE event = 'environment' ORDER BY id")
    assert changes == [("production", None), ("staging", "it was production before")]
    assert "it was production before" in stamped.flask("history").stdout
    with pytest.raises(EnvironmentDiffers):
        migrate(stamped, PRODUCTION)


def test_a_change_alone_is_something_to_do(site: Site) -> None:
    migrate(site, PRODUCTION)
    site.write({"002_b": B})
    (site.directory / "002_b.sql").unlink()
    change = Environment("qa", change=True)
    assert migrate(site, change).done == []
    assert stamp(site) == "qa"
    before = site.value("SELECT count(*) FROM _migration_history")
    migrate(site, change)
    assert site.value("SELECT count(*) FROM _migration_history") == before


def test_a_change_needs_a_name(stamped: Site) -> None:
    with pytest.raises(EnvironmentMissing):
        migrate(stamped, Environment(change=True))
    assert stamp(stamped) == "production"


def test_a_change_of_a_database_that_is_not_there_makes_none(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {})
    migrate(site, Environment("qa", change=True))
    assert not site.database.exists()


def test_a_failure_belongs_to_the_environment_too(stamped: Site) -> None:
    stamped.write({"003_c": "SELEC 1;"})
    assert stamped.flask("migrate", "--environment", "production").returncode == 3
    rows = stamped.rows("SELECT event, environment FROM _migration_history ORDER BY id DESC LIMIT 1")
    assert rows == [("failure", "production")]


def test_rows_of_an_older_version_in_between_hide_no_stamp(stamped: Site) -> None:
    stamped.do(
        "INSERT INTO _migration_history (event, filename, started_at, previous_sha256) VALUES ('apply', '', '', '')"
    )
    with pytest.raises(EnvironmentDiffers):
        migrate(stamped, DEVELOPMENT)


def test_a_history_without_the_column_gets_it_with_its_chain_unbroken(site: Site) -> None:
    migrate(site, NONE, target="1")
    site.do("ALTER TABLE _migration_history DROP COLUMN environment")
    assert stamp(site) is None
    migrate(site, STAGING)
    assert stamp(site) == "staging"
    assert site.flask("verify", "--environment", "staging").returncode == 0


def test_workers_that_start_at_once_stamp_a_new_database_once(site: Site) -> None:
    command = [*PLAIN, *site.options(), "--environment", "staging"]
    with ExitStack() as stack:
        workers = [stack.enter_context(started(command, site.root)) for _ in range(4)]
        assert [finish(worker).returncode for worker in workers] == [0] * 4
    assert site.applied() == ["001_a", "002_b", "003_c"]
    assert site.value("SELECT count(*) FROM _migration_history WHERE event = 'environment'") == 1


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_is_completed_by_the_next_in_the_same_environment(tmp_path: Path) -> None:
    at, finished = 0, None
    while finished is None or finished.returncode == -signal.SIGKILL:
        at += 1
        files = {"001_a": f"-- migrate:requires 2\n{A}", "002_b": f"-- migrate:environments staging\n{B}"}
        site = Site(tmp_path / str(at), files)
        command = [*PLAIN, *site.options(), "--environment", "staging"]
        finished = run(command, site.root, dies_at=at)
        assert run(command, site.root).returncode == 0
        assert (stamp(site), site.applied()) == ("staging", ["002_b", "001_a"])
        assert run([*PLAIN, *site.options()], site.root).returncode == 4
    assert at > 20


# Backups.


def backed_up(site: Site) -> str:
    assert site.flask("backup", str(site.root / "saved.db")).returncode == 0
    return str(site.root / "saved.db")


def restored(site: Site, backup: str, *words: str) -> Finished:
    return site.flask("restore", backup, "--yes", *words)


def test_a_restore_over_a_database_of_another_environment_is_refused(stamped: Site) -> None:
    saved = backed_up(stamped)
    before = snapshot(stamped.data)
    for words in ([], ["--environment", "development"], ["--dry-run"]):
        assert restored(stamped, saved, *words).returncode == 4
    assert snapshot(stamped.data) == before
    assert restored(stamped, saved, "--environment", "production").returncode == 0
    assert stamp(stamped) == "production"


def test_a_backup_of_another_environment_is_restored_only_when_told(stamped: Site, tmp_path: Path) -> None:
    saved = backed_up(stamped)
    staging = Site(tmp_path / "staging", {"001_a": DOWN.format(A)})
    migrate(staging, STAGING)
    refused = restored(staging, saved, "--environment", "staging")
    assert refused.returncode == 4
    assert "saved.db belongs to the environment production" in refused.stderr
    told = restored(staging, saved, "--environment", "staging", "--change-environment")
    assert told.returncode == 0, told.stderr
    assert stamp(staging) == "staging"


def test_a_backup_from_before_the_stamp_leaves_the_database_in_its_environment(site: Site) -> None:
    migrate(site, NONE, target="1")
    saved = backed_up(site)
    migrate(site, PRODUCTION)
    assert restored(site, saved, "--environment", "production").returncode == 0
    assert site.applied() == ["001_a"]
    assert stamp(site) == "production"


def test_the_stamp_is_a_fact_of_the_database_whatever_the_column_holds(stamped: Site) -> None:
    stamped.do("UPDATE _migration_history SET environment = x'00ff'")
    with closing(connect(str(stamped.database), readonly=True)) as db:
        assert isinstance(ledger.environment(db), str)
    with pytest.raises(EnvironmentDiffers):
        migrate(stamped, PRODUCTION)


def test_the_head_of_the_chat_stores_own_migrations_excludes_none() -> None:
    for dialect in DIALECTS:
        for file in discover(ROOT / "financial_agent" / "migrations", dialect):
            assert heads.read(file) == heads.Head()
