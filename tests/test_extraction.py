"""Files into text, over real files: what must be read, what must be refused, and what must not take us down."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
import threading
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from llamabda.adapters.kreuzberg import KreuzbergExtractor
from llamabda.errors import UnsupportedMedia
from llamabda.file_kinds import identify, promises_text
from llamabda.html_text import html_text

SAMPLES = files("llamabda") / "samples"
# Words that kreuzberg 4.10 does not find in these two; when it does, this says so.
KNOWN_GAPS = {
    "docx__testWORD_text_box.docx": {"directly"},
    "pdf__copy_paste_ligatures.pdf": {"abcdefﬀﬁﬂﬃﬄﬅﬆghijklmno"},
}


@pytest.fixture(scope="module")
def extractor():
    made = KreuzbergExtractor()
    yield made
    made.close()


def manifest() -> list[dict]:
    folder = Path(os.environ.get("LLAMABDA_DATA") or Path(__file__).parents[2] / "shared" / "data")
    file = folder / "documents" / "manifest.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.mark.skipif(not manifest(), reason="no evaluation data: set LLAMABDA_DATA to its folder")
@pytest.mark.parametrize("entry", manifest(), ids=lambda entry: entry["file"])
def test_a_collected_file_gives_its_text_or_a_clean_refusal(entry, extractor, data_dir):
    data = (data_dir / "documents" / "files" / entry["file"]).read_bytes()
    refusal = text = ""
    try:
        text = extractor.extract(data, name=entry["file"])
    except UnsupportedMedia as error:
        refusal = error.message
    if refusal:
        assert entry["file"] in refusal
        assert entry["expect"] != "text", refusal
        return
    assert entry["expect"] not in ("reject", "empty"), f"accepted: {text[:100]!r}"
    assert text.strip()
    text.encode("utf-8")
    assert "\x00" not in text
    if entry["expect"] == "text":
        missing = {word for word in entry.get("must_contain") or () if word not in text}
        assert missing == KNOWN_GAPS.get(entry["file"], set())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", ["notes.txt", "notes.md", "notes"])
def test_plain_text_is_kept_as_it_is_in_every_unicode_encoding(extractor, name, encoding):
    text = "Olá, Mundo: coração às 15h.\r\n\r\n\tIndented, “quoted” – and 3 € more.\n"
    assert extractor.extract(text.encode(encoding), name=name) == text


def test_western_single_byte_text_is_read(extractor):
    text = "Reunião às quartas-feiras: “pão” e café – 3 €\n"
    assert extractor.extract(text.encode("cp1252"), name="a.txt") == text


@pytest.mark.parametrize("encoding", ["cp866", "koi8-r", "cp1251", "cp1256"])
def test_text_in_an_encoding_that_we_cannot_tell_is_refused(extractor, encoding):
    text = "السلام عليكم ورحمة" if encoding == "cp1256" else "Однажды в студёную зимнюю пору я из лесу вышел"
    with pytest.raises(UnsupportedMedia, match="save it as UTF-8"):
        extractor.extract(text.encode(encoding), name="a.txt")


def test_nuls_and_lone_surrogates_become_replacement_characters(extractor):
    assert extractor.extract(b"a long enough text with one \x00 in it, and no more", name="a.txt").count("\ufffd") == 1
    text = extractor.extract("before ".encode("utf-16") + b"\x00\xd8" + " after".encode("utf-16-le"), name="a.txt")
    text.encode("utf-8")
    assert "before" in text
    assert "after" in text


@pytest.mark.parametrize(
    ("data", "name", "why"),
    [
        (b"", "a.txt", "empty"),
        (b" \n\t ", "a.md", "empty"),
        (b"\xff\xfe \x00", "a.txt", "empty"),
        (b"just words", "a.pdf", "not .pdf"),
        (b"just words", "a.docx", "not .docx"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a.txt", "PNG"),
        (b"\x7fELF" + bytes(100), "a", "program"),
        (bytes(range(256)) * 20, "a.txt", "binary"),
        (random.Random(7).randbytes(5_000), "a.md", "binary|encoding"),
        (b"%PDF-1.7\nnothing else", "a.pdf", "damaged|no text layer"),
        (b"PK\x03\x04" + bytes(50), "a.docx", "archive"),
        (b"<html><script>alert(1)</script></html>", "a.html", "no text"),
    ],
)
def test_what_holds_no_text_is_refused_naming_file_and_reason(extractor, data, name, why):
    with pytest.raises(UnsupportedMedia, match=why) as caught:
        extractor.extract(data, name=name)
    assert repr(name) in caught.value.message


@pytest.mark.parametrize("name", ["page.html", "page.txt", "page", "page.pdf.bin.html"])
def test_html_is_known_by_its_content_whatever_its_name(extractor, name):
    page = b"<!DOCTYPE html><html><body><h1>Prices</h1><p>Bread &amp; wine</p></body></html>"
    assert extractor.extract(page, name=name) == "# Prices\n\nBread & wine"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "iso-8859-1"])
def test_html_is_decoded_as_it_is_written_and_not_only_as_it_says(extractor, encoding):
    page = f'<html><head><meta charset="{"utf-8" if encoding == "utf-16" else encoding}"></head><p>São João é já'
    assert extractor.extract(page.encode(encoding), name="a.html") == "São João é já"


def test_an_external_entity_is_not_read(extractor, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP-SECRET")
    page = f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "{secret.as_uri()}">]><r>before &x; after</r>'
    for name in ("a.xml", "a.html", "a.txt"):
        text = extractor.extract(page.encode(), name=name)
        assert "before" in text
        assert "TOP-SECRET" not in text


def test_the_sample_documents_can_be_read_accents_included(extractor):
    pdf = extractor.extract((SAMPLES / "garantia.pdf").read_bytes(), name="garantia.pdf")
    assert "A garantia do serviço é de 90 dias para sócios" in pdf
    page = extractor.extract((SAMPLES / "price-list.html").read_bytes(), name="price-list.html")
    assert "Truing a wheel | 35 reais | 55 reais" in page
    for name in ("member-handbook.md", "history.txt", "parts-supply.txt", "perguntas-frequentes.md"):
        assert extractor.extract((SAMPLES / name).read_bytes(), name=name) == (SAMPLES / name).read_text("utf-8")


def test_the_sample_pdf_is_what_its_script_writes():
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    try:
        import sample_pdf
    finally:
        sys.path.pop(0)
    assert sample_pdf.document() == (SAMPLES / "garantia.pdf").read_bytes()


def test_a_parser_that_takes_too_long_is_stopped_and_replaced():
    with_little_time = KreuzbergExtractor(seconds=0.5)
    try:
        with pytest.raises(UnsupportedMedia, match=r"'slow.html' .* longer than 0.5 s"):
            with_little_time.extract(b"<html>" + b"<!--" * 400_000, name="slow.html")
    finally:
        with_little_time.close()


def test_a_parser_that_needs_too_much_memory_is_stopped():
    with_little_memory = KreuzbergExtractor(memory=120_000_000)
    try:
        with pytest.raises(UnsupportedMedia, match=r"'big.html' .* needed more than 120 MB"):
            with_little_memory.extract(b"<html>" + b"<p>word</p>" * 1_500_000, name="big.html")
        assert with_little_memory.extract(b"<html><p>small", name="small.html") == "small"
    finally:
        with_little_memory.close()


def test_a_child_that_died_is_replaced(extractor):
    page = b"<html><p>one"
    assert extractor.extract(page, name="a.html") == "one"
    child = extractor._child
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert extractor.extract(page, name="a.html") == "one"
    assert extractor._child.pid != child.pid


def test_a_zip_bomb_in_a_document_is_refused(extractor):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        bomb.writestr("[Content_Types].xml", "<Types/>")
        bomb.writestr("word/document.xml", b"<w:t>" + b" " * 200_000_000)
    with pytest.raises(UnsupportedMedia, match=r"bomb\.docx"):
        extractor.extract(buffer.getvalue(), name="bomb.docx")


def test_threads_share_one_extractor(extractor):
    texts: dict[int, str] = {}

    def read(number: int) -> None:
        texts[number] = extractor.extract(f"<html><p>page {number}".encode(), name=f"{number}.html")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {number: f"page {number}" for number in range(8)}


def test_the_child_sees_none_of_our_settings(monkeypatch):
    monkeypatch.setenv("SECRET_THING", "hidden")
    own = KreuzbergExtractor()
    try:
        own.extract(b"<html><p>x", name="a.html")
        environment = Path(f"/proc/{own._child.pid}/environ")
        if not environment.exists():
            pytest.skip("no /proc here")
        assert b"SECRET_THING" not in environment.read_bytes()
    finally:
        own.close()


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<title>T</title><p>a<br>b", "# T\n\na\nb"),
        ("<title>Same</title><h1>Same</h1>x", "# Same\n\nx"),
        ("<ul><li>one</li><li>two <b>bold</b>ly</li></ul>", "- one\n- two boldly"),
        ("<table><tr><th>a</th><th>b</th></tr>\n<tr><td>1</td><td>2</td></tr></table>", "a | b\n1 | 2"),
        ("<pre>def f():\n    pass</pre>after", "def f():\n    pass\n\nafter"),
        ("<script>x</script><style>y</style><svg><text>z</text></svg>left", "left"),
        ("<template><p>no</template><noscript>no</noscript>yes", "yes"),
        ('<a href="javascript:alert(1)">link</a> <img alt="a cat" src=x>', "link a cat"),
        ("<h2>split <div>over</div> blocks</h2>", "## split over blocks"),
        ("a&nbsp;b &lt;tag&gt; &#233;", "a b <tag> é"),
        ("no markup at all", "no markup at all"),
    ],
)
def test_a_page_becomes_what_a_reader_sees(page, text):
    assert html_text(page) == text


@pytest.mark.parametrize("head", ["<!-- x -->" * 2_000, " " * 19_990, "<!--" * 5_000, "<?xml" * 4_000])
@pytest.mark.timeout(20)
def test_telling_what_a_file_is_takes_bounded_time(head):
    identify(f"{head}text".encode(), name="a.txt")


@pytest.mark.parametrize(
    ("name", "worth"), [("a.md", True), ("README", True), ("a.PDF", True), ("a.png", False), ("a.tar.gz", False)]
)
def test_names_tell_what_is_worth_opening(name, worth):
    assert promises_text(name) is worth
