"""A real PACS for tests: Orthanc with its DICOMweb plugin, on a loopback port, seen by its own REST interface."""

from __future__ import annotations

import glob
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "someone", "s3cret-Wörd"
TIMEOUT = 120  # seconds; the machine may be busy


def installed() -> tuple[str, str]:
    """Orthanc and its plugin; the test is skipped without."""
    found = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin") or shutil.which("Orthanc")
    plugin = next((path for pattern in PLUGINS for path in glob.glob(pattern)), None)
    if not found or not plugin:
        pytest.skip("Orthanc is not installed (Debian: apt-get install orthanc orthanc-dicomweb)")
    return found, plugin


class Orthanc:
    """A server that keeps what it has in a folder, so that it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.program, plugin = installed()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/dicom-web"
        self.log = folder / "orthanc.log"
        self.settings = folder / "orthanc.json"
        content = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [plugin],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        self.settings.write_text(json.dumps(content), encoding="utf-8")
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([self.program, str(self.settings)], stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str):
        return self._request("GET", path).json()

    def upload(self, folder: Path) -> None:
        for file in sorted(folder.rglob("*.dcm")):
            self._request("POST", "/instances", data=file.read_bytes())

    def segmentations(self) -> dict[str, bytes]:
        """The files of all segmentations that it has, by SOPInstanceUID."""
        query = {"Level": "Instance", "Query": {"Modality": "SEG"}, "Expand": True}
        found = self._request("POST", "/tools/find", json=query).json()
        return {
            entry["MainDicomTags"]["SOPInstanceUID"]: self._request("GET", f"/instances/{entry['ID']}/file").content
            for entry in found
        }

    def changes(self) -> int:
        """A number that grows with whatever it takes or loses."""
        return self.get("/changes?last")["Last"]

    def remove(self, sop_uid: str) -> None:
        query = {"Level": "Instance", "Query": {"SOPInstanceUID": sop_uid}}
        (found,) = self._request("POST", "/tools/find", json=query).json()
        self._request("DELETE", f"/instances/{found}")

    def _answers(self) -> bool:
        import requests

        try:
            self.get("/system")
        except requests.RequestException:
            return False
        return True

    def _request(self, method: str, path: str, **content):
        import requests

        auth = requests.auth.HTTPBasicAuth(USER.encode(), PASSWORD.encode())
        answer = requests.request(method, f"{self.root}{path}", auth=auth, timeout=TIMEOUT, **content)
        answer.raise_for_status()
        return answer
