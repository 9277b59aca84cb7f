"""PDF files for tests, written byte by byte: no library that writes them is needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def write_pdf(file: Path, pages: Sequence[Sequence[str]], outline: Mapping[str, int] | None = None) -> None:
    """A PDF whose pages hold these lines; `outline` says on which page, from 0, an entry begins."""
    titles = list((outline or {}).items())
    first_title = 4 + 2 * len(pages)
    root = f"/Outlines {first_title} 0 R" if titles else ""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {root} >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{4 + 2 * n} 0 R' for n in range(len(pages)))}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        content = f"BT /F1 12 Tf 50 700 Td {shown}ET"
        font = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R {font} >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    if titles:
        last = first_title + len(titles)
        objects.append(f"<< /Type /Outlines /First {first_title + 1} 0 R /Last {last} 0 R /Count {len(titles)} >>")
        for position, (title, page) in enumerate(titles):
            here = first_title + 1 + position
            following = f"/Next {here + 1} 0 R" if here < last else ""
            before = f"/Prev {here - 1} 0 R" if position else ""
            place = f"/Dest [{4 + 2 * page} 0 R /Fit]"
            objects.append(f"<< /Title ({title}) /Parent {first_title} 0 R {following} {before} {place} >>")
    _write(file, objects)


def _write(file: Path, objects: Sequence[str]) -> None:
    body, places = b"%PDF-1.4\n", list[int]()
    for number, text in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    file.write_bytes(body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode())
