"""The readable text of an HTML page: headings as Markdown headings, items as lists, no scripts, no addresses."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SKIPPED = re.compile(r"script|style|template|noscript|svg|math|iframe|object|audio|video|canvas|select|textarea")
_PARAGRAPH = re.compile(
    r"address|article|aside|blockquote|body|dl|fieldset|figure|footer|form|header|hr|main|nav|ol|p|pre|section|table|ul"
    r"|details|summary|dialog|figcaption"
)
_LINE = re.compile(r"br|dd|div|dt|li|tr|caption")
_CELL = re.compile(r"t[dh]")
_HEADING = re.compile(r"h[1-6]")
_KEPT_SPACE = "\ue000"  # stands for a space inside <pre> until the others have been collapsed


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self._skipping = ""  # the outermost skipped element that is open
        self._skipped_depth = 0
        self._in_title = False
        self._preformatted = 0
        self._in_heading = False
        self._breaks = 2  # line ends just written; white space after one means nothing

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if _SKIPPED.fullmatch(tag) and self._skipping in ("", tag):
            self._skipping = tag
            self._skipped_depth += 1
        elif tag == "title":
            self._in_title = not self._skipping
        elif not self._skipping:
            self._open(tag, dict(attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not _SKIPPED.fullmatch(tag):  # <script/> stays open in HTML, but these pages mean XHTML
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._skipping:
            self._skipped_depth -= 1
            self._skipping = tag if self._skipped_depth else ""
        elif tag == "title":
            self._in_title = False
        elif not self._skipping:
            self._close(tag)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif self._skipping:
            return
        elif self._preformatted:
            self._write(data.replace("\t", "    ").replace(" ", _KEPT_SPACE))
        elif not (self._breaks and data.isspace()):
            self._write(re.sub(r"\s+", " ", data))

    def _open(self, tag: str, attributes: dict[str, str | None]) -> None:
        self._in_title = False
        if _HEADING.fullmatch(tag):
            self._break(2)
            self._write("#" * int(tag[1]) + " ")
            self._in_heading = True
        elif tag == "img" and (alt := attributes.get("alt")):
            self._write(f" {alt.strip()} ")
        else:
            self._block(tag)
            if tag == "li":
                self._write("- ")
        self._preformatted += tag == "pre"

    def _close(self, tag: str) -> None:
        if _HEADING.fullmatch(tag):
            self._in_heading = False
            self._break(2)
        elif _CELL.fullmatch(tag):
            self._write(" | ")
        else:
            self._block(tag)
        if tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)

    def _block(self, tag: str) -> None:
        lines = 2 if _PARAGRAPH.fullmatch(tag) else 1 if _LINE.fullmatch(tag) else 0
        if lines and self._in_heading:
            self._write(" ")  # a block inside a heading would tear the heading apart
        elif lines:
            self._break(lines)

    def _break(self, lines: int) -> None:
        if lines > self._breaks:
            self.parts.append("\n" * (lines - self._breaks))
            self._breaks = lines

    def _write(self, text: str) -> None:
        if text:
            self.parts.append(text)
            self._breaks = 0


def html_text(page: str) -> str:
    """The text of a page, in reading order. The title comes first, unless the first heading says the same."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    text = "".join(reader.parts)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"(?: \|)+ *$", "", text, flags=re.MULTILINE)  # no separator after a row's last cell
    text = re.sub(r"^(?:- ?|#{1,6} ?|[ |]+)$", "", text, flags=re.MULTILINE)  # empty items, headings and rows
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    title = re.sub(r"\s+", " ", "".join(reader.title)).strip()
    if title and title not in text[: len(title) + 10]:
        text = f"# {title}\n\n{text}" if text else title
    return text.replace(_KEPT_SPACE, " ")
