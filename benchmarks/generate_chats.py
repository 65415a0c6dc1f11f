"""Makes a database of realistic chats, as large as asked, through the project's own migrations.

The same seed, size and version give the same chats; only the ledger's times differ. Every trigger and foreign key of
the schema stays in force, see `insert_day`.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import chain, count
from operator import attrgetter
from pathlib import Path
from typing import Any

from financial_agent import config
from financial_agent.migrator import runner
from financial_agent.migrator.errors import MigratorError

MEGABYTE = 1_000_000
CONVERSATIONS_A_DAY = 50
FIRST_DAY = datetime(2023, 1, 2)

WORDS = {
    "asset": ["shares", "bonds", "index funds", "property funds", "gold", "money market funds", "Treasury bills"],
    "region": [
        "Europe",
        "the euro area",
        "the United States",
        "Japan",
        "emerging markets",
        "Switzerland",
        "the Nordics",
    ],
    "goal": ["my pension", "a house", "the children's studies", "a sabbatical", "an early retirement", "a new roof"],
    "account": [
        "the savings account",
        "the pension plan",
        "the joint deposit",
        "the custody account",
        "the life policy",
    ],
    "risk": ["inflation", "currency swings", "rising rates", "a default", "a long fall in prices", "too little spread"],
    "period": [
        "three months",
        "a year",
        "five years",
        "ten years",
        "the next quarter",
        "the rest of your working life",
    ],
    "move": ["rebalancing", "a monthly plan", "paying off the loan first", "a higher reserve", "selling in two steps"],
    "feeling": ["uneasy", "curious", "in no hurry", "rather optimistic", "undecided", "tired of watching prices"],
}
ASKED = [
    "How much of {account} should be in {asset}?",
    "I want to put {amount} € aside for {goal} within {period}.",
    "Is {move} worth it when {risk} is what I fear most?",
    "What did {asset} in {region} bring over {period}, after costs?",
    "Frankly I am {feeling} about {asset}; they lost {percent} % since I bought them.",
    "Could you show me {account} as a chart?",
    "And if I took {amount} € out of {account}?",
    "Thanks – that helps.",
    "My bank suggests {move} instead, at {percent} % a year. What do you think?",
]
ANSWERED = [
    "Over {period} {asset} in {region} returned {percent} % a year, before costs and taxes.",
    "With {amount} € in {account}, a fall of {percent} % would cost you about a month's salary.",
    "I would start with {move}, because it can be undone without a loss.",
    "Your share of {asset} is {percent} %, which is more than the {percent} % that we agreed on for {goal}.",
    "Please keep {amount} € where you can reach them within a day; {risk} rarely announces itself.",
    "The figures come from {account} as it stood last night, converted at the day's rate.",
    "If you are {feeling}, that is a reason to wait, not to sell.",
    "Costs matter here: {percent} % a year becomes {amount} € over {period}.",
    "A mix with {asset} has held up better against {risk} than either part alone.",
    "This is no promise: what happened in {region} over {period} need not happen again.",
    "For {goal} the order is simple: debts first, then a reserve, then {asset}.",
    "You could also leave {account} as it is and direct new savings of {amount} € into {asset}.",
]
QUERY = (
    "SELECT asset, sum(quantity * price) AS value FROM positions JOIN prices USING (asset) "
    "WHERE customer_id = '{customer}' AND day = '{day:%Y-%m-%d}' GROUP BY asset ORDER BY value DESC"
)


@dataclass(slots=True)
class Conversation:
    id: int
    customer_id: str | None
    session_id: str | None
    status: str
    metadata: str
    created_at: str


@dataclass(slots=True)
class Message:
    conversation_id: int
    sequence: int
    role: str
    is_active: int
    created_at: str
    content: str
    tool_calls: str | None = None
    tool_results: str | None = None
    sql_query: str | None = None
    sql_results: str | None = None
    chart_data: str | None = None


@dataclass(slots=True)
class Summary:
    conversation_id: int
    title: str
    summary: str
    quality_metrics: str
    model_name: str
    created_at: str
    updated_at: str


Row = Conversation | Message | Summary
TABLES: dict[type[Row], str] = {
    Conversation: "conversations",
    Message: "chat_messages",
    Summary: "conversation_summaries",
}


class Talk:
    """Draws what people and the advisor say."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._asked = [self._sentence(ASKED) for _ in range(4000)]
        self._answered = [self._sentence(ANSWERED) for _ in range(16000)]

    def question(self) -> str:
        """One to a few sentences: half of them under 100 characters, some of them a page."""
        return self._text(self._asked, 0.3, 0.8)

    def answer(self) -> str:
        """Half of them under 800 characters, one in a hundred over 4,000."""
        return self._text(self._answered, 2.1, 0.75)

    def conversation(self, id: int, start: datetime) -> tuple[Conversation, list[Message], list[Summary]]:
        """One conversation from its start to its summary, which most have."""
        rng = self.rng
        is_customer = rng.random() < 0.7
        customer = f"C-{rng.randrange(1000, 9000)}" if is_customer else None
        session = None if is_customer else f"s-{rng.getrandbits(64):016x}"
        about = {"channel": rng.choice(["web", "app", "branch"]), "language": rng.choice(["de", "en", "fr"])}
        status = rng.choices(["active", "archived", "closed"], [70, 20, 10])[0]
        conversation = Conversation(id, customer, session, status, json.dumps(about), utc(start))
        messages = list(self._messages(id, customer or "-", start, rng.randint(3, 20)))
        summaries = []
        if rng.random() < 0.6:
            end = messages[-1].created_at
            quality = {"coverage": round(rng.random(), 2), "faithfulness": round(rng.uniform(0.8, 1), 3)}
            title = rng.choice(self._asked).strip()[:120]
            summaries = [Summary(id, title, self.answer(), json.dumps(quality), "summariser-2", end, end)]
        return conversation, messages, summaries

    def _messages(self, conversation: int, customer: str, start: datetime, turns: int) -> Iterator[Message]:
        rng, at, sequence = self.rng, start, count(1)

        def message(role: str, content: str, **more: str | None) -> Message:
            nonlocal at
            at += timedelta(milliseconds=rng.randint(800, 120_000))
            is_active = int(rng.random() > 0.01)
            return Message(conversation, next(sequence), role, is_active, utc(at), content, **more)

        for _ in range(turns):
            yield message("user", self.question())
            if rng.random() < 0.65:
                yield message("assistant", self.answer())
                continue
            values = {asset: round(rng.lognormvariate(9, 1.2), 2) for asset in rng.sample(WORDS["asset"], 5)}
            call = f"call_{rng.getrandbits(40):010x}"
            asked = [{"id": call, "name": "portfolio", "arguments": {"customer": customer}}]
            yield message("assistant", "", tool_calls=json.dumps(asked))
            result = {call: {"total": round(sum(values.values()), 2), "positions": values}}
            yield message("tool", "", tool_results=json.dumps(result))
            found = [{"asset": asset, "value": value} for asset, value in values.items()]
            chart = {"type": "bar", "labels": list(values), "series": [{"name": "EUR", "data": list(values.values())}]}
            yield message(
                "assistant",
                self.answer(),
                sql_query=QUERY.format(customer=customer, day=at),
                sql_results=json.dumps(found),
                chart_data=json.dumps(chart) if rng.random() < 0.4 else None,
            )

    def _sentence(self, templates: list[str]) -> str:
        words: dict[str, Any] = {kind: self.rng.choice(them) for kind, them in WORDS.items()}
        figures = {"amount": f"{self.rng.lognormvariate(8, 1.5):,.0f}", "percent": f"{self.rng.gauss(5, 2):.1f}"}
        return self.rng.choice(templates).format(**words, **figures) + self.rng.choice((" ", " ", " ", "\n\n"))

    def _text(self, pool: list[str], mu: float, sigma: float) -> str:
        return "".join(self.rng.choices(pool, k=1 + int(self.rng.lognormvariate(mu, sigma)))).rstrip()


def utc(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds") + "Z"


def generate(database: Path, megabytes: float, seed: int, version: str | None, journal_mode: str) -> dict[str, int]:
    """Make the database and fill it, day by day, until it is as large as asked; the rows of each table."""
    runner.migrate(str(database), config.PACKAGE / "migrations", target=version)
    talk = Talk(seed)
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        for day in count():
            insert_day(db, talk, day)
            if database.stat().st_size >= megabytes * MEGABYTE:
                break
        # The triggers have just set it to now. What a client itself writes they leave alone.
        db.execute("UPDATE conversations SET updated_at = coalesce(last_message_at, created_at)")
        db.execute(f"PRAGMA journal_mode = {journal_mode}")
        return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES.values()}


def insert_day(db: sqlite3.Connection, talk: Talk, day: int) -> None:
    """The conversations of one day, in one transaction; their messages follow each other in time, as they would.

    Messages go in before their conversations. So the triggers count a conversation once, when it comes, and not once
    for each of its messages; the result is the same, and foreign keys are checked at the commit.
    """
    starts = [FIRST_DAY + timedelta(days=day, seconds=talk.rng.uniform(0, 86_400)) for _ in range(CONVERSATIONS_A_DAY)]
    first = day * CONVERSATIONS_A_DAY + 1
    conversations, threads, summaries = zip(*map(talk.conversation, count(first), sorted(starts)), strict=True)
    db.execute("BEGIN")
    db.execute("PRAGMA defer_foreign_keys = ON")
    insert(db, sorted(chain(*threads), key=attrgetter("created_at")))
    insert(db, conversations)
    insert(db, list(chain(*summaries)))
    db.execute("COMMIT")


def insert(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows of one table, with the columns that it has at the database's version."""
    table = TABLES[type(rows[0])]
    there = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
    if not there:
        raise SystemExit(f"There is no table {table} at this version: 003 is the first that has them all")
    columns = [field.name for field in fields(rows[0]) if field.name in there]
    marks = ", ".join("?" * len(columns))
    db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", map(attrgetter(*columns), rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path, help="the file to make; it must not exist")
    parser.add_argument("--megabytes", type=float, default=200, help="at least so many (default: 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--version", help="stop at this migration, 003 or later, so that the next ones are pending")
    parser.add_argument("--journal-mode", choices=["wal", "delete"], default="delete")
    options = parser.parse_args()
    if options.database.exists():
        parser.error(f"{options.database} exists already")
    began = time.monotonic()
    try:
        rows = generate(options.database, options.megabytes, options.seed, options.version, options.journal_mode)
    except MigratorError as error:
        parser.error(error.message)
    for table, number in rows.items():
        print(f"{table:24}{number:>10,} rows")
    megabytes = options.database.stat().st_size / MEGABYTE
    print(f"{options.database}: {megabytes:,.1f} MB in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
