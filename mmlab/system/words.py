"""Small words of messages: a number with its noun."""

from __future__ import annotations


def count(n: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun: "1 epoch", "2 epochs"; the default plural is the noun and s."""
    return f"{n} {noun}" if n == 1 else f"{n} {plural or noun + 's'}"
