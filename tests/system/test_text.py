"""Passwords and control characters in texts that are printed or recorded."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from mmlab.cli.text_console import TextConsole
from mmlab.system.printable import printable
from mmlab.system.redaction import redact


@pytest.mark.parametrize(
    "text",
    [
        "http://user:s3cr3t@host:5000",
        "http://:s3cr3t@host",
        "mmlab tune --tracking-uri 'postgresql://user:a@s3cr3t/b@host/db' --trials 3",
        "postgresql+psycopg://host/db?user=u&password=s3cr3t&sslmode=require",
        "API request to https://user:s3cr3t@host/api/2.0 failed (see http://user:s3cr3t@host)",
    ],
)
def test_passwords_are_masked(text: str) -> None:
    assert "s3cr3t" in text
    assert "s3cr3t" not in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/a:b/mlflow.db",
        "http://user@host:5000",
        "open http://127.0.0.1:5000/#/ and write to me@lab.org",
        "12:30 a@b",
    ],
)
def test_other_texts_are_left_as_they_are(text: str) -> None:
    assert redact(text) == text


@given(st.text("a:/@?# \n", max_size=30))
def test_user_and_password_end_where_the_pattern_ends(text: str) -> None:
    """The pattern is the rule, but takes steps that are quadratic in the length of a word."""
    assert redact(text) == re.sub(r"(://[^\s:/@?#]*):\S*@", r"\g<1>:***@", text)


def test_words_of_a_million_letters() -> None:
    for long in ("a" * 10**6, "://a:" * 10**5, "://" * 10**5):
        assert redact(f"{long} http://user:{long}@host") == f"{long} http://user:***@host"


def test_control_characters_are_shown_as_escapes() -> None:
    text = "a\x1b[31mb\x07\r\u202e\ud800\u2028\x9b"
    assert printable(text) == r"a\x1b[31mb\x07\r\u202e\ud800\u2028\x9b"
    assert printable("CD4+ T-Zellen, β-actin, 日本,\tand\nmore") == (
        "CD4+ T-Zellen, β-actin, 日本,\tand\nmore"
    )


def test_console_shows_names_as_text() -> None:
    console = TextConsole(file=io.StringIO(), width=80, force_terminal=True)
    table = Table("[bold]gene[/bold]")
    table.add_row("x[/red]")
    table.add_row("\x1b[2J:smile:")
    console.print("[red]name[/red]", table)
    text = console.file.getvalue()
    for shown in ("[red]name[/red]", "[bold]gene[/bold]", "x[/red]", r"\x1b[2J:smile:"):
        assert shown in text
    assert "\x1b[2J" not in text
