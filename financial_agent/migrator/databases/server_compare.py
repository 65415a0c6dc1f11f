"""What differs between the rows of two databases of one engine: counts, never contents.

The server makes a number of each value; a table is first compared by the sums of those, a part at a time, and only the
parts that differ are fetched. Rows are told apart by their primary key. In a table without one, or with one that became
another, only whole rows can be counted. A table that only changed its name did not change; of a column that did, what
stands in its place counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from financial_agent.migrator.databases.database import Database, Row, SchemaObject, TableChange

Digest = Callable[[Sequence[str]], str]
"""An SQL expression, a number of 60 bits at most, that is another for other values of these columns."""

_PART = 20_000  # rows, about, that are fetched at once


def compare(before: Database, after: Database, tables: Collection[str] | None, digest: Digest) -> list[TableChange]:
    """See `databases.compare`."""
    old, new = _tables(before), _tables(after)
    wanted = {
        name
        for name in old.keys() | new.keys()
        if tables is None or name in tables or not (name in old and name in new)
    }
    pairs = [(name, name) for name in wanted & old.keys() & new.keys()]
    gone, come = wanted - new.keys(), wanted - old.keys()

    def change(was: str, now: str) -> TableChange:
        return _Pair(before, after, old[was], new[now], digest).change()

    for was in sorted(gone):
        alike = (now for now in sorted(come) if old[was].columns == new[now].columns)
        if now := next((now for now in alike if change(was, now) == TableChange(new[now].name)), None):
            gone, come = gone - {was}, come - {now}
    changes = [
        *(change(was, now) for was, now in pairs),
        *(TableChange(old[name].name, deleted=before.counts(old[name].name, [])[0]) for name in gone),
        *(TableChange(new[name].name, inserted=after.counts(new[name].name, [])[0]) for name in come),
    ]
    return sorted(each for each in changes if each != TableChange(each.table))


class Rows(NamedTuple):
    """What the server makes of each row of a table: of its key, or of the whole if there is none, and of each value."""

    table: SchemaObject
    rows: Sequence[Row]


def rows_of(db: Database, table: SchemaObject, digest: Digest) -> Rows:
    """The rows of a table as they are now, to be compared later on."""
    names = [column.name for column in table.columns]
    key = [column.name for column in table.columns if column.key] or names
    return Rows(table, _Side(db, table, key, names, (), digest).rows(0, 1))


def difference(before: Rows, after: Rows) -> TableChange:
    """What became of the rows of a table whose columns are the same again."""
    names = [column.name for column in before.table.columns]
    found = _Counted()
    found.add(before.rows, after.rows, names, (), any(column.key for column in before.table.columns))
    return found.told(after.table.name, names)


def _tables(db: Database) -> dict[str, SchemaObject]:
    return {each.name.lower(): each for each in db.objects() if each.type == "table"}


class _Pair:
    """A table that both databases have, perhaps by different names."""

    def __init__(self, before: Database, after: Database, old: SchemaObject, new: SchemaObject, digest: Digest) -> None:
        self._before, self._after = before, after
        self._old, self._new = old, new
        self._digest = digest
        self._kept = list(_kept(old, new))
        kept = {was for was, _ in self._kept}
        self._lost = [column.name for column in old.columns if column.name not in kept]
        old_keys, new_keys = ({column.name: column.key for column in each.columns} for each in (old, new))
        self._key = [(was, now) for was, now in self._kept if old_keys[was] and old_keys[was] == new_keys[now]]
        is_whole = len(self._key) == sum(map(bool, old_keys.values())) == sum(map(bool, new_keys.values()))
        if not is_whole:
            self._key = []

    def change(self) -> TableChange:
        names = [was for was, _ in self._kept]
        before, after = self._sides(names)
        parts = 1 + max(before.count(), after.count()) // _PART
        old_sums, new_sums = before.sums(parts), after.sums(parts)
        found = _Counted()
        for part in range(parts):
            # What is lost with its column shows in no sum.
            if old_sums.get(part) != new_sums.get(part) or self._lost:
                found.add(before.rows(part, parts), after.rows(part, parts), names, self._lost, bool(self._key))
        return found.told(self._new.name, [*names, *self._lost])

    def _sides(self, names: Sequence[str]) -> tuple[_Side, _Side]:
        key = self._key or self._kept
        return (
            _Side(self._before, self._old, [was for was, _ in key], names, self._lost, self._digest),
            _Side(self._after, self._new, [now for _, now in key], [now for _, now in self._kept], (), self._digest),
        )


def _kept(old: SchemaObject, new: SchemaObject) -> Iterator[tuple[str, str]]:
    """Each column with what became of it: the one of its name, or else a new one in its place."""
    places = [column.name for column in new.columns]
    known = {column.name for column in old.columns}
    for at, column in enumerate(old.columns):
        if column.name in places:
            yield column.name, column.name
        elif at < len(places) and places[at] not in known:
            yield column.name, places[at]


class _Counted:
    """What differs, counted so far."""

    def __init__(self) -> None:
        self._inserted = self._updated = self._deleted = 0
        self._values = Counter[str]()

    def add(
        self,
        old_rows: Sequence[Row],
        new_rows: Sequence[Row],
        names: Sequence[str],
        lost: Sequence[str],
        is_keyed: bool,
    ) -> None:
        """Rows begin with their key, and go on with the columns of these names, in this order."""

        def losses(row: Row) -> list[str]:
            return [name for at, name in enumerate(lost, 1 + len(names)) if row[at]]

        if not is_keyed:
            was, now = (Counter(row[0] for row in rows) for rows in (old_rows, new_rows))
            self._deleted += (was - now).total()
            self._inserted += (now - was).total()
            self._values.update(name for row in old_rows for name in losses(row))
            return
        partners = {row[0]: row for row in new_rows}
        pairs = [(row, partners[row[0]]) for row in old_rows if row[0] in partners]
        self._deleted += len(old_rows) - len(pairs)
        self._inserted += len(new_rows) - len(pairs)
        for old, new in pairs:
            differing = [name for at, name in enumerate(names, 1) if old[at] != new[at]]
            self._updated += bool(differing)
            self._values.update([*differing, *losses(old)])

    def told(self, table: str, names: Sequence[str]) -> TableChange:
        values = tuple((name, self._values[name]) for name in names if self._values[name])
        return TableChange(table, self._inserted, self._updated, self._deleted, values)


class _Side:
    """A table of one of the two databases."""

    def __init__(
        self,
        db: Database,
        table: SchemaObject,
        key: Sequence[str],
        columns: Sequence[str],
        lost: Sequence[str],
        digest: Digest,
    ) -> None:
        self._db = db
        self._table = table.name
        self._key = digest([db.quoted(name) for name in key])
        self._whole = digest([db.quoted(name) for name in columns])
        values = [digest([db.quoted(name)]) for name in columns]
        presences = [f"CASE WHEN {db.quoted(name)} IS NULL THEN 0 ELSE 1 END" for name in lost]
        self._wanted = ", ".join([self._key, *values, *presences])

    def count(self) -> int:
        return self._db.counts(self._table, [])[0]

    def sums(self, parts: int) -> dict[int, tuple[int, int]]:
        """By part, the number of its rows, and the sum of what the server makes of them."""
        sql = f"SELECT {self._key} % {parts}, count(*), sum({self._whole}) FROM {self._from()} GROUP BY 1"
        return {int(part): (int(count), int(total)) for part, count, total in self._db.query(sql)}

    def rows(self, part: int, parts: int) -> list[Row]:
        return self._db.query(f"SELECT {self._wanted} FROM {self._from()} WHERE {self._key} % {parts} = {part}")

    def _from(self) -> str:
        return self._db.written(self._table)
