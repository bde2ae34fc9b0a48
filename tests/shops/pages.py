"""Follows a page of the docs as a person would: files are written, commands are run, output is compared."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_BLOCK = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n"
    r"(?: +:caption: (?P<caption>.+)\n)?\n"
    r"(?P<text>(?:(?P=indent)   .*\n|\n)+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A code block of the page."""

    language: str
    caption: str
    text: str


def read_blocks(page: str) -> list[Block]:
    """Return the code blocks of ``docs/<page>``."""
    text = (ROOT / "docs" / page).read_text()
    blocks = [
        Block(found["language"], found["caption"] or "", textwrap.dedent(found["text"]).strip() + "\n")
        for found in _BLOCK.finditer(text)
    ]
    assert len(blocks) == text.count("code-block::")
    return blocks


class Follower:
    """Somebody who does what a page says, in a project of his own; only ``pip install`` was done before."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder, self.printed = folder, ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self._sandbox: subprocess.Popen[str] | None = None
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KOOMALOOMA_")},
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "DJANGO_SETTINGS_MODULE": settings,
            "PYTHONUNBUFFERED": "1",
        }

    def follow(self, blocks: list[Block]) -> None:
        """Do what each block says."""
        for block in blocks:
            # The sandbox's usual port may be in use on this machine.
            text = block.text.replace("8765", self._port)
            if block.language == "console":
                for command, expected in _read_commands(text):
                    self._type(command, expected)
            elif block.language == "text":
                assert block.caption == "it prints"
                assert self.printed.strip() == text.strip()
            elif block.caption == "python manage.py shell":
                self.printed = self.run("shell", "-v", "0", input=text)
            else:
                assert block.caption.endswith(".py"), f"What to do with this block? {block}"
                file = self.folder / block.caption
                file.parent.mkdir(exist_ok=True)
                with file.open("a") as lines:
                    lines.write(f"\n{text}")

    def stop(self) -> None:
        """Close the second terminal."""
        if self._sandbox is not None:
            self._sandbox.terminate()
            self._sandbox.communicate(timeout=10)

    def _type(self, command: str, expected: str) -> None:
        if command.startswith("pip install "):
            return
        words = command.removeprefix("python manage.py ").split()
        assert command.startswith("python manage.py "), f"What to do with this command? {command}"
        if words[0] == "koomalooma_sandbox":
            self._sandbox = subprocess.Popen(
                [*self._manage(*words), "--port", self._port],
                cwd=self.folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self._sandbox.stdout
            printed = self._sandbox.stdout.readline()
        else:
            printed = self.run(*words)
        pattern = ".*".join(re.escape(part.strip()) for part in expected.split("…"))
        assert re.fullmatch(pattern, printed.strip(), re.DOTALL) if expected else True, printed

    def _manage(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "django", *words]

    def run(self, *words: str, input: str = "") -> str:
        """Run one of the project's commands; return what it prints."""
        done = subprocess.run(
            self._manage(*words),
            cwd=self.folder,
            env=self._environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )
        # koomalooma_status ends with 1 while there is something to attend to, the campaign for instance.
        assert done.returncode == 0 or words[0] == "koomalooma_status", done.stdout + done.stderr
        return done.stdout


def _read_commands(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command.strip(), expected.strip()
