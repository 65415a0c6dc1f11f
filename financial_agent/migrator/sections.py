"""The two sections of a file: what stands in them, and what may not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from financial_agent.migrator import batches, directives, heads
from financial_agent.migrator.assertions import is_assertion
from financial_agent.migrator.dialects import rules_of
from financial_agent.migrator.dialects.rules import Control
from financial_agent.migrator.directives import Direction, section_of
from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import (
    AssertionInvalid,
    AttachRefused,
    BatchInvalid,
    DirectiveInvalid,
    LedgerTouched,
    NeedsNoTransaction,
    SectionsInvalid,
    SQLiteOnly,
    TransactionControl,
)
from financial_agent.migrator.lexer import Directive, Statement, locate, place
from financial_agent.migrator.rebuild_text import read_rebuild

LEDGER_TABLES = (
    "_migrations",
    "_migration_history",
    "_migration_progress",
    "_migration_attempt",
    "_migration_lock",
)
_OF_SQLITE = ("foreign_keys", "rebuild", "copy")


class Section:
    """What is known of a section while it is being read."""

    def __init__(self, direction: Direction, name: str, dialect: str) -> None:
        self.direction = direction
        self.name = name
        self.dialect = dialect
        self.marked = False
        self.start = self.end = 0
        self.line = 1
        self.transaction = True
        self.foreign_keys = True
        self.allow: set[str] = set()
        self.empty = True
        self.count = 0
        self.keywords: set[str] = set()
        self.leaves_settings = False
        self.out_of_order = False
        self.is_python = False
        self.rebuilds = 0
        self.assertions = 0
        self.batch: Directive | None = None
        """The first that says that the section runs in batches."""
        self.head: list[Directive] = []
        self._first: Statement | None = None
        self._first_assertion: Directive | None = None
        self._alone: Statement | None = None
        self._rules = rules_of(dialect)
        self._begin: Statement | None = None
        self._commit: Statement | None = None

    @property
    def wrapped(self) -> bool:
        """It is one BEGIN … COMMIT."""
        return self._commit is not None

    @property
    def has_work(self) -> bool:
        """It has a statement to run: assertions alone are none."""
        return self.count > self.assertions

    def open(self, marker: Directive) -> None:
        if self.marked:
            self._refuse_sections(marker, f"there is a second {marker.word} section", "Keep one of them")
        if self._first_assertion:
            where = place(self.name, self._first_assertion)
            raise AssertionInvalid(location=where, problem="it stands above the sections")
        self.marked = True
        self.start, self.line = marker.start, marker.line
        self.transaction = "transaction:false" not in marker.arguments

    def configure(self, directive: Directive) -> None:
        self._refuse_of_sqlite(directive)
        match directive.word:
            case "foreign_keys":
                self.foreign_keys = False
            case "out-of-order":
                self.out_of_order = True
            case "ignore":
                pass  # for the rules, which do not run anything
            case word if word in heads.WORDS:
                self._take_head(directive)
            case _:
                self.allow.update(directive.arguments)

    def add(self, statement: Statement) -> None:
        """Take a statement in, or refuse it."""
        rules, keyword = self._rules, statement.keyword
        self._refuse_ledger(statement)
        if is_assertion(statement):
            self._first_assertion = self._first_assertion or statement.directives[0]
            self.assertions += 1
            self.count += 1
            return
        self.empty = False
        for directive in statement.directives:
            self._refuse_of_sqlite(directive)
        rules.refuse(statement, self._at(statement))
        self._batch(statement)
        if control := rules.control(statement):
            if self.transaction:
                self._wrap(statement, control)
                return
        elif keyword in rules.settings:
            self._setting(statement)
            if self.transaction and rules.switches_foreign_keys(statement) is not None:
                return
        else:
            self._refuse_behind_commit()
            self._first = self._first or statement
        if keyword in rules.attaching:
            if "attach" not in self.allow:
                raise AttachRefused(location=self._at(statement), keyword=keyword)
            self.leaves_settings = True
        if self.transaction and (what := rules.needs_no_transaction(statement)):
            raise NeedsNoTransaction(location=self._at(statement), what=what, section=self.direction)
        if read_rebuild(statement, self.name, transaction=self.transaction):
            self.rebuilds += 1
            self.foreign_keys = False  # the old table is dropped
        self.keywords.add(keyword)
        self.count += 1

    def _take_head(self, directive: Directive) -> None:
        """It is the file's, and found without reading the file as a whole."""
        if (self.direction == "down" and self.marked) or not self.empty:
            problem = f"migrate:{directive.word} is for the whole file"
            fix = "Move it to the top of the file, above the first statement"
            raise DirectiveInvalid(location=place(self.name, directive), problem=problem, fix=fix)
        self.head.append(directive)

    def close(self, end: int) -> None:
        self.end = end
        if self.batch and not (self.transaction and self.foreign_keys):
            problem = "batches are transactions of their own, in which foreign keys are enforced"
            fix = f"Remove {'foreign_keys off' if self.transaction else 'transaction:false'}"
            raise BatchInvalid(location=place(self.name, self.batch), problem=problem, fix=fix)
        if self._begin and not self._commit:
            self._refuse_control(self._begin)

    def _batch(self, statement: Statement) -> None:
        directive = batches.batch_of(statement)
        if directive:
            batches.check(statement, directive, self.name, self._rules)
            self.batch = self.batch or directive
        else:
            batches.refuse_without(statement, self.name, self._rules)
            self._alone = self._alone or statement
        if self.batch and self._alone:
            problem = f"{self._alone.keyword} cannot stand beside batches, which would not be undone together with it"
            fix = "Put it into a migration of its own"
            raise BatchInvalid(location=self._at(self._alone), problem=problem, fix=fix)

    def _wrap(self, statement: Statement, control: Control) -> None:
        if control.does == "opens" and not self._first and not self._begin:
            self._begin = statement
        elif control.does == "closes" and self._begin and not self._commit:
            self._commit = statement
        else:
            self._refuse_control(statement)

    def _refuse_behind_commit(self) -> None:
        if self._commit:
            self._refuse_control(self._commit)

    def _refuse_control(self, statement: Statement) -> None:
        control = self._rules.control(statement)
        assert control
        raise TransactionControl(location=self._at(statement), keyword=control.words, section=self.direction)

    def _setting(self, statement: Statement) -> None:
        switched = self._rules.switches_foreign_keys(statement)
        if switched is not None:
            self.foreign_keys = self.foreign_keys and switched
        if switched is None or not self.transaction:
            self.leaves_settings = True

    def _refuse_ledger(self, statement: Statement) -> None:
        text = statement.text.lower()
        if "_migration" not in text and "u&" not in text:  # which may spell any name
            return
        for at, name in self._rules.names(statement):
            if name.lower() in LEDGER_TABLES:
                raise LedgerTouched(location=locate(self.name, statement, at), table=name.lower())

    def _refuse_of_sqlite(self, directive: Directive) -> None:
        if directive.word in _OF_SQLITE and self._rules.changes_in_place:
            name = Path(self.name).name
            variant = f"{name.partition('.')[0]}.{self.dialect}.sql"
            where = "" if name == variant else f", in a file for this engine alone: {variant}"
            fix = f"Remove it, and change the table in place with ALTER TABLE{where}"
            raise SQLiteOnly(location=place(self.name, directive), word=directive.word, fix=fix)

    def _refuse_sections(self, marker: Directive, problem: str, fix: str) -> None:
        raise SectionsInvalid(location=place(self.name, marker), problem=problem, fix=fix)

    def _at(self, statement: Statement) -> Location:
        return locate(self.name, statement, 0)


def parse(chunks: Iterable[str], name: str, dialect: str, stored: bool = False) -> dict[str, Section]:
    up, down = Section("up", name, dialect), Section("down", name, dialect)
    current, length = up, 0

    def measured() -> Iterator[str]:
        nonlocal length
        for chunk in chunks:
            length += len(chunk)
            yield chunk

    for item in directives.parse(measured(), name, dialect):
        if isinstance(item, Statement):
            current.add(item)
            continue
        section = section_of(item)
        if section is None:
            for each in (current,) if up.marked or down.marked else (up, down):
                each.configure(item)
            continue
        if section == "up" and not up.marked and not up.empty:
            problem = "the up section must come first, with no statement before it"
            raise SectionsInvalid(location=place(name, item), problem=problem, fix="Move -- migrate:up to the top")
        if section == "down" and not up.marked and not stored:
            problem = "the down section stands before any up section"
            fix = "Begin what applies the migration with a line: -- migrate:up"
            raise SectionsInvalid(location=place(name, item), problem=problem, fix=fix)
        current.close(item.start)
        current = up if section == "up" else down
        current.open(item)
    current.close(length)
    return {"up": up, "down": down}
