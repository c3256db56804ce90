"""Foreign text is shown as it is, and as nothing else, in a cell of Markdown; markdown-it-py is the judge."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_pages import page_of

from gaussianverse.escape import markdown, one_line

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></table><h1>x", "&lt;b&gt; &amp; &#60;",
    "a|b||c", "`code` ``x``", "![x](https://x.org/x.png)", "[x](javascript:alert(1))", "[x]: https://x.org",
    "*a* **b** _c_ __d__ e_f_g h_", "~~a~~ ==b== ^c^ $x^2$ :tada: @user #1",
    "https://x.org/a_b?c=d&e www.x.org a@b.org",
    "\\", "\\|", "a\\", "---", "|---|", "# x", "- x", "1. x", "    x", " x ", " ", "\u3000x\u00a0",
    "{{ x }} {% x %} ${x} {x}", "a\nb\r\n\n# c\t", "\x00\x1b[31m\x9b", "\u202etxt.exe\u2066x\u2028", "\ud800",
    "\U0001f600 é 漢字 עברית", "'\"", "x" * 9000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_each_known_trick_is_only_text(text: str) -> None:
    check(text)


@given(st.text(max_size=60))
@example("")
def test_any_text_is_only_text(text: str) -> None:
    check(text)


@given(st.text(alphabet="|\\`<>&*_[]()!#-~$:@\"' \nax;/=", max_size=30))
def test_any_mixture_of_markup_is_only_text(text: str) -> None:
    check(text)


def check(text: str) -> None:
    page = page_of(f"| a | b |\n|---|---|\n| {markdown(text, 10_000)} | end |\n\nafter\n")
    assert page.tables == [[["a", "b"], [one_line(text), "end"]]]
    assert set(page.elements) == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert page.attributes == []


def test_a_long_text_is_cut_and_says_so() -> None:
    assert markdown("x" * 11, 10) == "xxxxxxxxxx ... (11 characters)"
    assert markdown("x" * 10, 10) == "xxxxxxxxxx"
    page = page_of(f"| a |\n|---|\n| {markdown('|' * 11, 10)} |\n")
    assert page.tables == [[["a"], ["|||||||||| ... (11 characters)"]]]


def test_an_address_is_shown_and_not_linked() -> None:
    shown = markdown("www.x.org https://x.org a@x.org", 100)
    assert not any(mark in shown for mark in ("www.", "://", "a@x"))


def test_what_people_write_stays_legible() -> None:
    for text in ("CC-BY-4.0", "CC0-1.0", "A. Author (2020), 50 % of it", "low_psnr", "Zoë's chair, 漢字"):
        assert markdown(text, 100) == text
