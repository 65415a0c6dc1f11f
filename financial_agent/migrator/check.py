"""What a review of the migration files asks, without any live database: the lint, the proof, and the lock file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from financial_agent.migrator import finding, lockfile, plan, proof, proof_findings, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import dialect_of, is_file
from financial_agent.migrator.discovery import discover, listing
from financial_agent.migrator.errors_files import FileRefused
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.lint import catalog, silence
from financial_agent.migrator.lint.lint import lint
from financial_agent.migrator.lint.silence import Sifted, Silenced
from financial_agent.migrator.script import Migration, MigrationFile, read
from financial_agent.migrator.survey import review

# The codes that a file can say not to count.
KNOWN = {*catalog.RULES, *(code for codes in proof_findings.ASPECTS.values() for code in codes)}
# Those that do not count of what was released before it was checked. Without a way there nothing else can be told.
_OF_THE_PAST = KNOWN - {proof_findings.NOT_APPLIED}
_NEEDS_EMPTY_TABLE = "FA608"


@dataclass(frozen=True)
class Report:
    """Which migrations were looked at, and what was found."""

    directory: Path
    files: tuple[MigrationFile, ...] = ()
    findings: tuple[Finding, ...] = ()
    silenced: tuple[Silenced, ...] = ()
    """What a file says not to count, with its reason, and what was released before it was checked."""

    @property
    def is_well(self) -> bool:
        return not any(each.fails for each in self.findings)


def check(
    directory: Path,
    *,
    database: str = "sqlite:",
    minimum_sqlite: tuple[int, ...] | None = None,
    environment: str | None = None,
    after: str | None = None,
    write_lock: bool = False,
    control: Control,
) -> Report:
    """Check a folder's migrations, as a database's engine runs them: those of an environment, or, for None, those of
    all beside each other. A server's scratch databases are made beside the database, which is not looked at. Nothing is
    written but, with `write_lock`, the lock file, before all else. Of the migrations up to the target `after`, only
    what keeps them from being applied counts, and the lock file.

    A file that cannot be used is a finding. Raises TargetUnknown, TargetAmbiguous, FolderMissing, LockFileUnusable,
    NoSpace, ScratchRefused and Interrupted.
    """
    scratch = "sqlite:" if is_file(database) else database
    try:
        discovered = discover(directory, dialect_of(database))
        paths = [each.path for each in sorted(listing(directory), key=lambda each: (each.version, each.path.name))]
        accepted = plan.resolve(after, [each.filename for each in discovered]) if after is not None else None
        if write_lock:
            lockfile.write(directory, paths)
        files = review(discovered, environment)
    except FileRefused as error:
        return Report(directory, findings=(finding.of_error(error),))
    migrations, behind, unusable = _read(files)
    skipped = {each.version for each in discovered} - {each.version for each in files}
    judged = _lint(migrations, minimum_sqlite, skipped, scratch, control)
    findings = [
        *lockfile.check(directory, paths),
        *unusable,
        *_without_repetition(proof.prove(migrations, control, scratch), judged),
        *proof_findings.unproven(behind),
        *judged,
    ]
    ignores = [each for migration in migrations for each in silence.ignores(migration)]
    sifted = silence.sift(findings, ignores, KNOWN)
    sifted = _without_the_past(sifted, accepted) if accepted else sifted
    places = {file.filename: at for at, file in enumerate(files)}
    in_order = sorted(sifted.findings, key=lambda each: places.get(each.filename or "", -1))
    return Report(directory, tuple(files), tuple(in_order), sifted.silenced)


def _without_the_past(sifted: Sifted, accepted: str) -> Sifted:
    """Without what is found in the files up to the accepted one, which nobody can edit any more."""
    counted, silenced = list[Finding](), list(sifted.silenced)
    for found in sifted.findings:
        if found.code in _OF_THE_PAST and plan.version_of(found.filename or "") <= plan.version_of(accepted):
            silenced.append(Silenced(found, f"it is not after {accepted}", is_in_file=False))
        else:
            counted.append(found)
    return Sifted(tuple(counted), tuple(silenced))


def _without_repetition(proven: Sequence[Finding], judged: Sequence[Finding]) -> list[Finding]:
    """What the proof found, without what a rule says of the same statement, together with what to do about it."""
    told = {(each.filename, each.location) for each in judged if each.code == _NEEDS_EMPTY_TABLE}
    code = proof_findings.NOT_APPLIED_TO_ROWS
    return [each for each in proven if each.code != code or (each.filename, each.location) not in told]


def _lint(
    migrations: Sequence[Migration],
    minimum_sqlite: tuple[int, ...] | None,
    skipped: set[int],
    scratch: str,
    control: Control,
) -> list[Finding]:
    with session.explained("the scratch database", control, "while the files were being judged"):
        return lint(migrations, minimum_sqlite, control.patience(), skipped, scratch)


def _read(files: Sequence[MigrationFile]) -> tuple[list[Migration], list[Migration], list[Finding]]:
    """The migrations up to the first file that is none, those behind it, which cannot be replayed, and what is wrong
    with the others."""
    migrations: list[Migration] = []
    behind: list[Migration] = []
    unusable: list[Finding] = []
    for file in files:
        try:
            (behind if unusable else migrations).append(read(file))
        except FileRefused as error:
            unusable.append(finding.of_error(error, file.filename))
    return migrations, behind, unusable
