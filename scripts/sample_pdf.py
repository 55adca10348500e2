"""Writes the one PDF among the sample documents: python scripts/sample_pdf.py

The file is committed; this says where it comes from. Standard library only, and the same bytes on every run: the text
stands in one of the fonts that every reader has, in Windows' Western encoding, so that accents can be extracted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

TARGET = Path(__file__).parent.parent / "layers" / "shared" / "llamabda" / "samples" / "garantia.pdf"

Page: TypeAlias = tuple[tuple[int, str], ...]  # paragraphs, each with the size of its letters

HEAD, SECTION, TEXT = 16, 13, 11  # points
PAGES = (
    (
        (HEAD, "Política de garantia da Roda Livre"),
        (
            TEXT,
            "Esta política vale para todos os consertos feitos na oficina da cooperativa a partir de 1º de março de "
            "2026. Ela foi aprovada pela assembleia dos sócios em 14 de fevereiro de 2026.",
        ),
        (SECTION, "Prazo"),
        (
            TEXT,
            "A garantia do serviço é de 90 dias para sócios e de 30 dias para visitantes, contados a partir da entrega "
            "da bicicleta. Peças novas têm a garantia do fabricante. Peças usadas são garantidas por 15 dias.",
        ),
        (SECTION, "O que não está coberto"),
        (
            TEXT,
            "Não cobrimos o desgaste normal de pneus, correntes e pastilhas de freio, nem danos causados por quedas, "
            "ferrugem ou água do mar. Também perde a garantia quem deixa outra oficina mexer na mesma peça.",
        ),
    ),
    (
        (SECTION, "Como pedir o conserto em garantia"),
        (
            TEXT,
            "Traga a bicicleta e o recibo de papel, ou informe o número do conserto, que está gravado na etiqueta "
            "amarela colada debaixo do selim. O responsável pela garantia é Caio Brandão, que atende às "
            "quartas-feiras, das 15h às 19h.",
        ),
        (
            TEXT,
            "O conserto em garantia é feito em até cinco dias úteis. Se a peça precisar ser encomendada, emprestamos "
            "uma bicicleta sem custo durante a espera.",
        ),
        (SECTION, "Reclamações"),
        (
            TEXT,
            "Quem não concordar com a nossa decisão pode escrever à comissão de sócios, que responde por escrito em "
            "dez dias. A comissão é eleita todo mês de agosto e tem três pessoas.",
        ),
    ),
)


def page_content(blocks: Page) -> bytes:
    """Drawing operators: each block a paragraph of lines, set in Helvetica at the given size in points."""
    lines = ["BT"]
    y = 780.0
    for size, text in blocks:
        y -= size
        for line in textwrap.wrap(text, width=int(990 / size)):
            escaped = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            lines.append(f"/F1 {size} Tf 1 0 0 1 60 {y:.1f} Tm ({escaped}) Tj")
            y -= size * 1.4
    return "\n".join([*lines, "ET"]).encode("cp1252")


def document(pages: Sequence[Page] = PAGES) -> bytes:
    """The whole file."""
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /Lang (pt-BR) >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        font,
    ]
    for number, blocks in enumerate(pages):
        content = page_content(blocks)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


if __name__ == "__main__":
    TARGET.write_bytes(document())
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")
