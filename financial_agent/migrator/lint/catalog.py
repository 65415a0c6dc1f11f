"""All rules, by their codes."""

from __future__ import annotations

from financial_agent.migrator.lint import deploys, features, house, rows, soundness
from financial_agent.migrator.lint.rule import Rule, written

_NEEDLESS = Rule(
    code="FA618",
    severity="warning",
    title="what is ignored is there",
    why="An `ignore` that silences nothing is left from what was mended, or misses what it was written for. Either "
    "way it says something that is not true.",
    advice="Remove the line",
    wrong=(
        written(
            "002_index_orders",
            "The list of the dearest orders reads them by total.",
            "-- migrate:ignore FA612 the totals are known to differ\n"
            "CREATE INDEX IF NOT EXISTS orders_by_total ON orders (total);",
            "DROP INDEX IF EXISTS orders_by_total;",
        ),
    ),
    right=(
        written(
            "002_index_orders",
            "The list of the dearest orders reads them by total.",
            "CREATE INDEX IF NOT EXISTS orders_by_total ON orders (total);",
            "DROP INDEX IF EXISTS orders_by_total;",
        ),
    ),
    source="https://eslint.org/docs/latest/use/configure/rules#report-unused-eslint-disable-comments",
)

RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in sorted(
        (*house.RULES, *rows.RULES, *deploys.RULES, *soundness.RULES, *features.RULES, _NEEDLESS),
        key=lambda rule: rule.code,
    )
}
