"""What a file is, by its content first and its name second, and the text of plain-text files.

Nothing here parses a complex format: it only looks at signatures, so it is safe on any bytes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from llamabda.errors import UnsupportedMedia

HTML = "text/html"
_OFFICE = "application/vnd.openxmlformats-officedocument."
_DOCX = _OFFICE + "wordprocessingml.document"
_PPTX = _OFFICE + "presentationml.presentation"
_XLSX = _OFFICE + "spreadsheetml.sheet"

HEAD = 4_096  # bytes looked at when guessing an encoding
BINARY_SHARE = 0.02  # of characters that are control codes: text has next to none
FOREIGN_SHARE = 0.3  # of non-ASCII bytes: Latin languages stay far below, others would be misread as cp1252

# signature -> what to tell the user; none of these holds text that we could read
_NOT_DOCUMENTS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x7fELF": "a program",
}
_ZIP_MIMES = (
    "application/epub+zip",
    "application/vnd.oasis.opendocument.text",
    "application/vnd.oasis.opendocument.spreadsheet",
)
# names found uncompressed in a zip's directory -> media type
_ZIP_PARTS = {
    b"META-INF/container.xml": "application/epub+zip",
    b"word/document": _DOCX,
    b"ppt/presentation": _PPTX,
    b"xl/workbook": _XLSX,
}
# names of streams in an OLE file, UTF-16 -> media type
_OLE_STREAMS = {
    "WordDocument": "application/msword",
    "Workbook": "application/vnd.ms-excel",
    "PowerPoint Document": "application/vnd.ms-powerpoint",
    "__substg1.0_": "application/vnd.ms-outlook",
}
# suffixes that promise a format which always carries a signature
_SIGNED = re.compile(
    r"pdf|do[ct][xm]?|xls[xmb]?|ppt[xm]?|od[tsp]|epub|rtf|msg|zip|png|jpe?g|gif|tiff?|webp|bmp|gz|7z|rar|mp[34]|mov"
    r"|exe|dll|so|bin"
)
_WITHOUT_TEXT = re.compile(
    r"png|jpe?g|gif|tiff?|webp|bmp|ico|svgz?|heic|mp[34]|m4[av]|mov|avi|mkv|webm|wav|flac|ogg|zip|gz|tgz|bz2|xz|zst|7z|rar"
    r"|tar|jar|exe|dll|so|dylib|o|a|bin|dat|db|sqlite|pyc|whl|class|wasm|woff2?|ttf|otf|gguf|onnx|safetensors|npy|npz|lock"
)
_MARKUP = {"html": HTML, "htm": HTML, "xhtml": HTML, "xml": HTML, "eml": "message/rfc822"}

# atomic, so that hostile input cannot make it try every way to divide a row of comments
_HTML_START = re.compile(
    r"(?>(?:<\?xml[^>]*\?>|<!--.*?-->)\s*)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_KNOWN_CHARSETS = re.compile(
    r"(?:utf-?8|us-ascii|iso-?8859-\d{1,2}|latin-?\d|windows-\d{3,4}|cp\d{3,4}|koi8-[ru]|macintosh"
    r"|shift[_-]jis|euc-(?:jp|kr)|iso-2022-jp|gb(?:2312|k|18030)|big5)",
    re.IGNORECASE,
)
_BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Plain:
    """A text file: `text` is its content, decoded."""

    text: str


@dataclass(frozen=True, slots=True)
class Formatted:
    """A file that needs a parser for `mime`. Markup comes as UTF-8 whatever it was encoded in."""

    mime: str
    data: bytes


def identify(data: bytes, *, name: str) -> Plain | Formatted:
    """Says what a file is. UnsupportedMedia when it is empty, binary, or not what its name promises."""
    if not data.strip():
        raise refused(name, "it is empty")
    if mime := _signature(data, name):
        return Formatted(mime, data)
    suffix = _suffix(name)
    text = _decoded(data, name)
    if _SIGNED.fullmatch(suffix):
        raise refused(name, f"its content is plain text and not .{suffix}: give it the name it should have")
    if not text.strip():
        raise refused(name, "it is empty")
    if _HTML_START.match(text.lstrip()[:20_000]):
        return Formatted(HTML, text.encode())
    if mime := _MARKUP.get(suffix):
        # mail declares an encoding for each part: only a mail that is UTF-16 as a whole is re-encoded
        return Formatted(mime, data if mime != HTML and b"\0" not in data[:HEAD] else text.encode())
    return Plain(text)


def promises_text(name: str) -> bool:
    """Whether a file of this name is worth opening when nobody asked for it in particular."""
    return not _WITHOUT_TEXT.fullmatch(_suffix(name))


def refused(name: str, why: str) -> UnsupportedMedia:
    """The error for a file that cannot be read."""
    return UnsupportedMedia(f"{name[-200:]!r} cannot be read: {why}")


def clean(text: str) -> str:
    """Without a byte order mark; NULs and lone surrogates, which no store takes, become U+FFFD."""
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text.removeprefix("\ufeff"))


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _signature(data: bytes, name: str) -> str | None:
    head = data[:1024]
    for signature, what in _NOT_DOCUMENTS.items():
        if data.startswith(signature):
            raise refused(name, f"it is {what}")
    if head.lstrip().startswith(b"%PDF-") or (b"%PDF-" in head and b"\0" in head):
        return "application/pdf"
    if data.startswith(b"{\\rtf"):
        return "application/rtf"
    if data.startswith(b"PK\x03\x04"):
        return _zip(data, name)
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _ole(data, name)
    return None


def _zip(data: bytes, name: str) -> str:
    if data[30:38] == b"mimetype" and (declared := re.match(rb"application/[\w.+-]{1,80}", data[38:140])):
        for known in _ZIP_MIMES:  # what follows the name without a gap is the next entry
            if declared[0].decode().startswith(known):
                return known
    for part, mime in _ZIP_PARTS.items():
        if part in data:
            return mime
    raise refused(name, "it is an archive, or damaged: unpack it, or save it again")


def _ole(data: bytes, name: str) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise refused(name, "it is encrypted: save it without a password")
    for stream, mime in _OLE_STREAMS.items():
        if stream.encode("utf-16-le") in data:
            return mime
    raise refused(name, "it is an old Office container without a document that we know")


def _decoded(data: bytes, name: str) -> str:
    text = clean(_unicode(data) or _single_byte(data, name))
    odd = sum(unicodedata.category(char) == "Cc" and not char.isspace() for char in text[:100_000])
    replaced = text.count("\ufffd", 0, 100_000)
    if odd + replaced > max(2, BINARY_SHARE * min(len(text), 100_000)):
        raise refused(name, "it is binary, and of no kind that we know")
    return text


def _unicode(data: bytes) -> str | None:
    """The text when it is in some form of Unicode, or in the encoding that its markup declares."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, "replace")
    if wide := _wide_without_bom(data[:HEAD]):
        return data.decode(wide, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if (declared := _DECLARED.search(data[:1024])) and _KNOWN_CHARSETS.fullmatch(
        charset := declared[1].decode("ascii")
    ):
        try:
            return data.decode(charset)
        except (UnicodeDecodeError, LookupError):
            pass  # declared wrongly, which is common: go on guessing
    mostly = data.decode("utf-8", "replace")
    broken = mostly.count("\ufffd")
    sound = sum(not char.isascii() for char in mostly) - broken
    return mostly if sound >= 10 * broken else None  # UTF-8 with a few damaged bytes


def _wide_without_bom(head: bytes) -> Literal["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"] | None:
    """Western text in two or four bytes a character has its zeros in fixed places."""
    if len(head) < 8:
        return None
    zeros = [head[place::4].count(0) / len(head[place::4]) for place in range(4)]
    if min(zeros[1:]) > 0.9 and zeros[0] < 0.1:
        return "utf-32-le"
    if min(zeros[:3]) > 0.9 and zeros[3] < 0.1:
        return "utf-32-be"
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    if odd > 0.4 and even < 0.05:
        return "utf-16-le"
    if even > 0.4 and odd < 0.05:
        return "utf-16-be"
    return None


def _single_byte(data: bytes, name: str) -> str:
    """Windows' Western encoding, when the bytes look like it."""
    if b"\0" in data[:HEAD]:
        raise refused(name, "it is binary, and of no kind that we know")
    text = data.decode("cp1252", "replace")
    foreign = [char for char in text if not char.isascii()]
    letters = sum(char.isalpha() or char in "‘’“”–—…€«»°ºª§" for char in foreign)
    if len(foreign) > FOREIGN_SHARE * len(data) or letters < 0.7 * len(foreign):
        raise refused(name, "its encoding is neither Unicode nor Western: save it as UTF-8")
    return text
