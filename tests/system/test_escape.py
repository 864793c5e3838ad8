import pytest

from rootstock.system.escape import (
    Markdown,
    code_span,
    escape_html,
    escape_lines,
    escape_markdown,
    escape_terminal,
    list_names,
    markdown_table,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("golden_retriever", "golden_retriever"),
        ("Café no. 7 (b)", "Café no. 7 (b)"),
        ("R&D", "R&D"),
        ("a|b", r"a\|b"),
        ("new\nline", r"new\\nline"),
        ("_bold_", r"\_bold\_"),
        ("**b**", r"\*\*b\*\*"),
        ("$x$", r"\$x\$"),
        ("`code`", r"\`code\`"),
        ("<script>", "&lt;script&gt;"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("[a](javascript:alert(1))", r"\[a\](javascript:alert(1))"),
        ("![](http://x/y.png)", r"!\[\](http://x/y.png)"),
        (7, "7"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, shown):
    assert escape_markdown(text) == shown


def test_text_that_is_markdown_already_is_kept():
    assert escape_markdown(Markdown("**bold**")) == "**bold**"


@pytest.mark.parametrize(
    ("text", "span"),
    [("ants", "`ants`"), ("a`b", "`` a`b ``"), ("a|b", r"`a\|b`"), ("x\ny", r"`x\ny`")],
)
def test_code_cannot_be_left(text, span):
    assert code_span(text) == span


def test_a_table_keeps_its_columns_and_lines():
    assert markdown_table(("class", "n"), [("a|b\nc", 3), (Markdown("`x`"), 4)]) == [
        "| class | n |",
        "| --- | --- |",
        r"| a\|b\\nc | 3 |",
        "| `x` | 4 |",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\r\nb", r"a\r\nb"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\udcff", r"\udcff"),
        ("thé 🐝", "thé 🐝"),
    ],
)
def test_a_terminal_gets_one_line_without_control_characters(text, shown):
    assert escape_terminal(text) == shown


def test_lines_of_an_error_stay_lines():
    assert escape_lines("a\x1b\n  -> b") == "a\\x1b\n  -> b"


def test_names_are_one_line():
    assert list_names(["a\nb", "c"]) == r"a\nb, c"


def test_html_has_neither_tags_nor_ends_of_attributes():
    assert escape_html("<b title='x' \x07\">") == ("&lt;b title=&#x27;x&#x27; \\x07&quot;&gt;")
