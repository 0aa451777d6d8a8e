"""A DICOMweb server for tests, of a few lines: a test changes how it answers."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import urlsplit

import pydicom

FIELDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "StudyDate")


class Handler(BaseHTTPRequestHandler):
    """QIDO-RS that ignores every filter and knows no pages, WADO-RS and STOW-RS; a test changes what it does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, path = self.server, urlsplit(self.path).path
        server.asked.append((self.path, dict(self.headers)))
        if server.busy:
            server.busy -= 1
            self.answer(server.busy_says, b"busy", "text/plain")
        elif server.html:
            self.answer(200, b"<html>Welcome</html>", "text/html")
        elif server.says is not None:
            self.answer(200, server.says, "application/dicom+json")
        elif re.fullmatch(r"/web/studies/[\d.]+/series/[\d.]+", path):
            content, kind = multipart(server.of(path)[server.left_out :])
            how = server.broken.get(path.rpartition("/")[2])
            if how == "junk":
                content = b"--x\r\nContent-Type: application/dicom\r\n\r\njunk\r\n--x--\r\n"
            self.answer(200, content, kind, breaks_off=how == "breaks off")
        else:
            if path.endswith("/metadata"):
                found = [ds.to_json_dict() for ds in server.of(path)]
                for header in found:
                    header.pop("7FE00010")
            else:
                key = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")[path.count("/") // 2 - 1]
                found = list({ds[key].value: entry(ds, server.silent) for ds in server.of(path)}.values())
            self.answer(200, json.dumps(found).encode(), "application/dicom+json")

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.stored.append(self.rfile.read(length))
        says = taken(self.server.stored[-1]) if self.server.takes else self.server.stow_says
        self.answer(self.server.stow, says, "application/dicom+json")

    def answer(self, code, content, kind, breaks_off=False):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if breaks_off else content)
        self.close_connection |= breaks_off

    def log_message(self, *_words):
        pass


class StubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, images: list[pydicom.Dataset]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.images, self.asked, self.stored = images, [], []
        self.busy, self.busy_says, self.html, self.left_out, self.silent = 0, 503, False, 0, ()
        self.says: bytes | None = None  # to all searches
        self.broken: dict[str, str] = {}  # how the images of a series come: "junk", or "breaks off"
        self.stow, self.stow_says, self.takes = 200, b"", False
        self.url = f"http://127.0.0.1:{self.server_port}/web"

    def of(self, path: str) -> list[pydicom.Dataset]:
        uids = re.findall(r"/(?:studies|series|instances)/([\d.]+)", path)
        keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        return [ds for ds in self.images if all(ds[key].value == uid for key, uid in zip(keys, uids, strict=False))]


def entry(ds, silent) -> dict:
    told = pydicom.Dataset()
    for keyword in FIELDS:
        if keyword in ds and keyword not in silent:
            setattr(told, keyword, ds[keyword].value)
    return told.to_json_dict()


def multipart(images) -> tuple[bytes, str]:
    parts = []
    for ds in images:
        with BytesIO() as file:
            ds.save_as(file, enforce_file_format=True)
            parts.append(b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file.getvalue() + b"\r\n")
    return b"".join(parts) + b"--x--\r\n", 'multipart/related; type="application/dicom"; boundary=x'


def taken(body: bytes) -> bytes:
    """What a server answers that has taken the object in a request."""
    stored = pydicom.dcmread(BytesIO(body[body.find(b"DICM") - 128 :]))
    uid = {"00081155": {"vr": "UI", "Value": [str(stored.SOPInstanceUID)]}}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [uid]}}).encode()


@contextmanager
def serving(images: list[pydicom.Dataset]) -> Iterator[StubServer]:
    stub = StubServer(images)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    try:
        yield stub
    finally:
        stub.shutdown()
        stub.server_close()
