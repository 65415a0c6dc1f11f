"""Gives a pending migration the next free number: after a merge brought two with one number, or one below those that
are applied."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from financial_agent.migrator import discovery, plan, session
from financial_agent.migrator.discovery import Listed
from financial_agent.migrator.errors import FolderMissing, RenumberRefused, TargetAmbiguous

_number = re.compile(r"[0-9]+(?=_)")


def renumber(database: str, directory: Path, file: str, now: datetime | None = None) -> list[tuple[Path, Path]]:
    """Rename a migration's file and its variants: each one's old and new path. What they hold is not touched.

    `file` is a path, a name, or a part of one that only one migration has. A run that goes on meanwhile notices, as the
    file that it has read is gone. Raises RenumberRefused, TargetUnknown, FolderMissing and FileNameInvalid.
    """
    listed = discovery.listing(directory)
    applied = [entry.filename for entry in session.recorded(database, session.ASKING).entries]
    chosen = _choose(listed, _name_in(directory, file))
    others = [each for each in listed if each not in chosen]
    _refuse_needless(chosen[0], others, applied)
    # The number of an applied migration whose file is gone is not free.
    taken = [each.digits for each in others] + [number[0] for name in applied if (number := _number.match(name))]
    digits = discovery.next_number(taken, now)
    renamed = [(each.path, each.path.with_name(digits + each.path.name.removeprefix(each.digits))) for each in chosen]
    _rename(renamed)
    return renamed


def _name_in(directory: Path, file: str) -> str:
    path = Path(file)
    if path.name != file and path.parent.resolve() != directory.resolve():
        fix = "Name the folder that it is in with --directory"
        raise RenumberRefused(name=file, why=f"it is not in {directory}", fix=fix)
    return path.name


def _choose(listed: Sequence[Listed], name: str) -> list[Listed]:
    """The files of the migration that is meant. With one number they may be several migrations."""
    filenames = {each.path.name: each.plain_name for each in listed}
    try:
        filename = filenames.get(name) or plan.resolve(name, list(dict.fromkeys(filenames.values())))
    except TargetAmbiguous as error:
        fix = "Say which one by its full name"
        raise RenumberRefused(name=name, why=f"it matches {error.fields['matches']}", fix=fix) from None
    return [each for each in listed if each.plain_name == filename]


def _refuse_needless(chosen: Listed, others: Sequence[Listed], applied: Sequence[str]) -> None:
    if chosen.filename in applied:
        same = [each for each in others if each.version == chosen.version and each.filename not in applied]
        fix = f"flask db renumber {shlex.quote(same[0].plain_name)}" if same else "flask db status"
        raise RenumberRefused(name=chosen.plain_name, why="it is applied", fix=fix)
    if chosen.version > max(
        [each.version for each in others] + [plan.version_of(name) for name in applied], default=-1
    ):
        why = "it is the newest already"
        raise RenumberRefused(name=chosen.plain_name, why=why, fix="flask db migrate")


def _rename(renamed: Sequence[tuple[Path, Path]]) -> None:
    reserved: list[Path] = []
    try:
        for _, new in renamed:  # a file that somebody else makes meanwhile is not replaced
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            reserved.append(new)
        for old, new in renamed:
            os.replace(old, new)
            reserved.remove(new)
    except OSError as error:
        for new in reserved:
            new.unlink()
        problem = f"cannot be written to: {error.strerror}"
        raise FolderMissing(folder=renamed[0][1].parent, problem=problem) from error
