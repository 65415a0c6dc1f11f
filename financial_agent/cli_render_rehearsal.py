"""What a rehearsal found: pure functions from values to text and JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from financial_agent.cli_render import amount, differences_text, done_json, milliseconds, shown
from financial_agent.cli_render_inspect import difference_json
from financial_agent.migrator.assertions import is_assertion
from financial_agent.migrator.databases import Effect, TableChange
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.rehearsed import Rehearsal, Rehearsed
from financial_agent.migrator.schema import Difference


def rehearsal_text(rehearsal: Rehearsal) -> str:
    """A paragraph for each migration, and a summary."""
    if not (rehearsal.steps or rehearsal.failure):
        return shown([f"Nothing to rehearse: nothing would be done on {rehearsal.database}."])
    has_rows = rehearsal.where != "a copy without rows"
    paragraphs = ["\n".join(_lines(step, has_rows=has_rows)) for step in rehearsal.steps]
    summary = [
        f"Rehearsed {amount(len(rehearsal.steps), 'migration')} {_where(rehearsal)}",
        *_backup_lines(rehearsal),
    ]
    return "\n\n".join([*paragraphs, shown(summary)])


def _where(rehearsal: Rehearsal) -> str:
    if rehearsal.where == "a transaction":
        return (
            f"on {rehearsal.database} itself, in a transaction that was rolled back: it took the locks of the real "
            "run, for as long as it lasted. Nothing of it remains."
        )
    copied = f"({rehearsal.size / 1e6:.1f} MB, copied in {milliseconds(rehearsal.copy_ms)})"
    return f"on {rehearsal.where} of {rehearsal.database} {copied}. The database was not touched."


def _backup_lines(rehearsal: Rehearsal) -> list[str]:
    if rehearsal.is_backup_due:
        return ["The run makes a backup first."]
    return ["The run makes no backup, though it destroys something."] if rehearsal.is_destructive else []


def rehearsal_json(rehearsal: Rehearsal, *, show_sql: bool) -> dict[str, Any]:
    return {
        "where": rehearsal.where,
        "size": rehearsal.size,
        "copy_ms": rehearsal.copy_ms,
        "destructive": rehearsal.is_destructive,
        "backup": rehearsal.is_backup_due,
        "migrations": [{**_step_json(step), **({"sql": _sql(step)} if show_sql else {})} for step in rehearsal.steps],
    }


def sql_text(rehearsal: Rehearsal) -> str:
    """The statements that were run, those of each migration under its name."""
    return "\n\n".join(f"-- {step.done.filename}\n{_sql(step)}" for step in rehearsal.steps)


def losses_text(rehearsal: Rehearsal) -> str:
    """What a rollback takes away, table by table."""
    lines = [f"This rolls back {', '.join(step.done.filename for step in rehearsal.steps)}."]
    changes = _summed([change for step in rehearsal.steps for change in step.rows])
    losses = [line for change in changes for line in _losses(change, "will be gone")]
    if rehearsal.where == "a copy without rows":
        losses = [line for step in rehearsal.steps for line in _destroyed(step)]
        losses.append("how many rows will be gone is not known: flask db rollback --dry-run --with-data")
    return shown([*lines, *(f"  {line}" for line in losses or ["no row will be gone"]), *_backup_lines(rehearsal)])


def _summed(changes: Sequence[TableChange]) -> list[TableChange]:
    """The deleted rows and lost values of several steps, by table."""
    rows: Counter[str] = Counter()
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for change in changes:
        rows[change.table] += change.deleted
        values[change.table].update(dict(change.values))
    return [TableChange(table, deleted=rows[table], values=tuple(values[table].items())) for table in sorted(rows)]


def _lines(step: Rehearsed, *, has_rows: bool) -> Iterator[str]:
    done = step.done
    verb = "" if done.direction == "up" else " (rollback)"
    yield shown([f"{done.filename}{verb}"])
    batches = f" in {amount(done.batches, 'batch')}" if done.batches else ""
    work = f"{amount(done.statements, 'statement')}{batches}, {milliseconds(done.duration_ms)}"
    yield _line("ran", f"{work}; other writers wait for up to {milliseconds(done.blocked_ms)}")
    yield from _block("schema", differences_text(step.schema).splitlines() if step.schema else ["no change"])
    rows = [_change_text(change) for change in step.rows] or ["no change"]
    yield from _block("rows", rows if has_rows else ["not known: the copy has none (--with-data copies them)"])
    yield from _block("destroys", list(_destroyed(step)))
    yield _line("checks", _checks(step))
    if done.direction == "up":
        yield from _block("way back", _way_back(step, has_rows=has_rows))


def _line(label: str, text: str) -> str:
    return f"  {label:<9} {text}"


def _block(label: str, lines: Sequence[str]) -> Iterator[str]:
    for at, line in enumerate(lines):
        yield _line("" if at else label, shown([line]))


def _checks(step: Rehearsed) -> str:
    integrity = f"integrity: {'; '.join(step.problems)}" if step.problems else "integrity ok"
    return shown([f"{integrity}, {f'foreign keys: {step.orphans}' if step.orphans else 'foreign keys ok'}"])


def _change_text(change: TableChange) -> str:
    counts = [
        f"{count:,} {word}"
        for count, word in ((change.inserted, "inserted"), (change.updated, "updated"), (change.deleted, "deleted"))
        if count
    ]
    values = [f"{amount(count, 'value')} of {column}" for column, count in change.values]
    columns = f"changed or lost: {', '.join(values)}" if values else ""
    return f"{change.table}: {', '.join([*counts, *([columns] if columns else [])])}"


def _way_back(step: Rehearsed, *, has_rows: bool) -> list[str]:
    way_back = step.way_back
    if way_back is None and step.step.script.only_rebuilds:
        return ["none: a column that it drops must have a value, and no default gives one"]
    if way_back is None:
        return ["none: there is no down section"]
    if way_back.failure:
        return [f"the down section fails: {way_back.failure}"]
    unknown = [f"the rows of {table} were not compared: it is large" for table in way_back.not_compared]
    if way_back.is_complete:
        return [f"the down section brings {'schema and rows' if has_rows else 'the schema'} back", *unknown]
    lines = ["the down section does not bring everything back:"]
    lines += differences_text(way_back.schema, "  ").splitlines() if way_back.schema else []
    for change in way_back.rows:
        lines += [f"  {line}" for line in _losses(change, "would not come back")]
        if change.inserted:
            lines.append(f"  {amount(change.inserted, 'row')} of {change.table} would stay")
    return [*lines, *unknown]


def _losses(change: TableChange, fate: str) -> Iterator[str]:
    if change.deleted:
        yield f"{amount(change.deleted, 'row')} of {change.table} {fate}"
    for column, count in change.values:
        yield f"{amount(count, 'value')} of {change.table}.{column} {fate}"


def _destroyed(step: Rehearsed) -> Iterator[str]:
    """A line for each statement that destroys something. A dropped table takes its triggers and indexes along."""
    by_line: dict[int, list[Effect]] = {}
    for effect, line in step.destroyed:
        by_line.setdefault(line, []).append(effect)
    for line, effects in by_line.items():
        if any(effect.kind == "drop table" for effect in effects):
            effects = [effect for effect in effects if effect.kind not in ("drop trigger", "drop index")]
        yield f"line {line}: {'; '.join(_effects_text(effects))}"


def _effects_text(effects: Sequence[Effect]) -> Iterator[str]:
    """What a statement destroys, in words: the columns of a table together, and without the names of triggers."""
    columns: dict[tuple[str, str], list[str]] = {}
    for effect in effects:
        how = _how(effect)
        seen = (f"overwrites {effect.name} (", how) if effect.kind == "update" else (_what(effect), how)
        columns.setdefault(seen, []).append(effect.column or "every column")
    for (what, how), names in columns.items():
        yield f"{what}{', '.join(dict.fromkeys(names))}){how}" if what.endswith("(") else what + how


def _how(effect: Effect) -> str:
    via = (
        "" if effect.via is None else " through a foreign key" if effect.via == "a foreign key" else " through triggers"
    )
    return f" in every row{via}" if effect.kind == "update" and effect.everywhere else via


def _what(effect: Effect) -> str:
    match effect.kind:
        case "drop column":
            return f"drops column {effect.name}.{effect.column}"
        case "delete":
            return f"deletes {'every row' if effect.everywhere else 'rows'} of {effect.name}"
        case "replace":
            return f"replaces rows of {effect.name}"
        case "rewrite":
            return "rewrites the whole file"
        case "unknown":
            return "does what cannot be known beforehand"
        case _:
            return f"{effect.kind.replace('drop', 'drops')} {effect.name}"


def _step_json(step: Rehearsed) -> dict[str, Any]:
    return {
        **done_json(step.done),
        "state": "rehearsed",
        "direction": step.done.direction,
        "rows": [_change_json(change) for change in step.rows],
        "schema": _schema_json(step.schema),
        "destroys": [{**effect._asdict(), "line": line} for effect, line in step.destroyed],
        "foreign_keys": [step.orphans] if step.orphans else [],
        "integrity": list(step.problems),
        "way_back": _way_back_json(step),
    }


def _way_back_json(step: Rehearsed) -> dict[str, Any] | None:
    way_back = step.way_back
    if way_back is None:
        return None
    return {
        "complete": way_back.is_complete,
        "failure": way_back.failure,
        "schema": _schema_json(way_back.schema),
        "rows": [_change_json(change) for change in way_back.rows],
        "not_compared": list(way_back.not_compared),
    }


def _schema_json(schema: Sequence[Difference]) -> list[dict[str, Any]]:
    return [difference_json(difference) for difference in schema]


def _change_json(change: TableChange) -> dict[str, Any]:
    return {**change._asdict(), "values": dict(change.values)}


def _sql(step: Rehearsed) -> str:
    return "\n".join(_as_written(statement) for statement in step.step.script.statements())


def _as_written(statement: Statement) -> str:
    directives = [f"-- migrate:{each.word} {each.text}" for each in statement.directives]
    return "\n".join(directives if is_assertion(statement) else [*directives, statement.text])
