"""Reads a Markdown page as a browser sees it: rendered by markdown-it-py, parsed by html.parser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from markdown_it import MarkdownIt


@dataclass
class Page:
    """A rendered page: text of each cell by table and row, elements in their order, and all attributes."""

    tables: list[list[list[str]]] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str | None]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self._in_cell = Page(), False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        page = self.page
        page.elements.append(tag)
        page.attributes += attrs
        if tag == "table":
            page.tables.append([])
        elif tag == "tr":
            page.tables[-1].append([])
        elif tag in ("td", "th"):
            page.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.page.tables[-1][-1][-1] += data

    def handle_comment(self, data: str) -> None:
        self.page.elements.append("comment")


def page_of(text: str) -> Page:
    """The page, rendered as GitHub and the Hugging Face hub do: CommonMark, tables, strikethrough, raw HTML kept."""
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    reader = _Reader()
    reader.feed(renderer.render(text))
    reader.close()
    return reader.page
