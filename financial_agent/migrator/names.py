"""Names as SQLite reads and compares them."""

from __future__ import annotations


def folded(name: str) -> str:
    """A name without the case of ASCII letters, the only ones of which it does not count."""
    return name.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def unquoted(token: str) -> str:
    """The name that a token means. SQLite takes a string for one, too, where only a name can stand."""
    if token[:1] in ('"', "`", "'") and len(token) > 1 and token[-1] == token[0]:
        return token[1:-1].replace(token[0] * 2, token[0])
    return token[1:-1] if token[:1] == "[" and token[-1:] == "]" else token


def column_in(expression: str) -> str | None:
    """The folded name of what an expression would be when it is nothing but a column; a string is none."""
    token = expression.strip()
    return None if token.startswith("'") else folded(unquoted(token))
