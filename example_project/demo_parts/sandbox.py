"""The pretend koomalooma as a process of its own, and the settings that it prints for the shop."""

import ast
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from demo_parts.processes import Children

SETTING = re.compile(r"^(KOOMALOOMA_\w+) = ('[^']*'|\"[^\"]*\")$", re.MULTILINE)
READY = "Its ledger: "


@dataclass(frozen=True)
class SandboxProcess:
    """A running sandbox."""

    url: str
    settings: dict[str, str]

    def ledger(self) -> list[dict[str, object]]:
        """Return its bookings, the oldest first."""
        answer = requests.get(f"{self.url}/_sandbox/ledger", timeout=10, proxies={"no_proxy": "127.0.0.1"})
        answer.raise_for_status()
        return list(answer.json())


def start_sandbox(
    children: Children, folder: Path, port: int, faults: Sequence[str], seconds: float
) -> SandboxProcess:
    """Start the sandbox and wait until it serves.

    Raises:
        ChildDied: It has ended at once.
        TimeoutError: It did not say its settings in time.
    """
    command = [sys.executable, "-m", "django_koomalooma.sandbox"]
    options = [f"--port={port}", f"--ledger={folder / 'ledger.jsonl'}"]
    child = children.start("sandbox", [*command, *options, *faults], os.environ)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        said = child.log.read_text(errors="replace")
        if READY in said:
            settings = {name: str(ast.literal_eval(value)) for name, value in SETTING.findall(said)}
            url = settings["KOOMALOOMA_API_URL"].removesuffix("/api")
            if port and not url.endswith(f":{port}"):
                print(f"Port {port} is in use by something else. The sandbox takes another one.")
            return SandboxProcess(url, settings)
        children.check()
        time.sleep(0.05)
    raise TimeoutError(f"The sandbox was not ready within {seconds:.0f} s.")
