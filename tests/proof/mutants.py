"""The mutants: thirteen ways to lose or double points, each written into a copy of the source.

``python -m tests.proof.mutants`` runs the tests that should notice, and prints which one did. It fails if a
mutant survives, or if its place in the source is not found exactly once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "django_koomalooma"
KILL, FAULT, LIMIT = "tests/proof/test_kill.py", "tests/proof/test_faults.py", "tests/proof/test_limits.py"
KILLED = f"{KILL}::test_a_worker_killed_while_delivering_neither_loses_nor_doubles"
FAULTY = f"{FAULT}::test_each_fault_ends_in_the_status_that_it_proves"


@dataclass(frozen=True)
class Edit:
    """One replacement in one file of the source."""

    file: str
    old: str
    new: str

    def count(self, root: Path) -> int:
        """Return how often the text to be replaced is there."""
        return (root / SOURCE / self.file).read_text().count(self.old)

    def apply(self, root: Path) -> None:
        """Replace it."""
        path = root / SOURCE / self.file
        path.write_text(path.read_text().replace(self.old, self.new))


@dataclass(frozen=True)
class Mutant:
    """A mistake, and the tests of which at least one must fail because of it."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "lease by read-then-write",
        (
            Edit("querysets.py", "        if features.has_select_for_update:\n", "        if False:\n"),
            Edit(
                "querysets.py",
                "self.filter(pk__in=pks, status=CommitmentStatus.QUEUED).update(",
                "self.filter(pk__in=pks).update(",
            ),
        ),
        ("tests/proof/test_races.py::test_a_row_that_another_run_took_after_it_was_read_is_not_sent",),
    ),
    Mutant(
        "no write-ahead",
        (
            Edit(
                "querysets.py",
                "            status=CommitmentStatus.SENDING,\n            lease=lease,",
                "            lease=lease,",
            ),
            Edit("querysets.py", "            self._write_attempts(pks, lease, now)\n", "            pass\n"),
            Edit("recording.py", "OPEN = (_S.SENDING, _S.IN_DOUBT)", "OPEN = (_S.QUEUED, _S.IN_DOUBT)"),
        ),
        (f"{KILLED}[after the last byte]", f"{KILLED}[before the record]"),
    ),
    Mutant(
        "RemoteDisconnected taken as safe",
        (
            Edit(
                "client.py",
                "        elif call.sent:\n",
                '        elif call.sent and "RemoteDisconnected" not in self._describe(failure, call):\n',
            ),
        ),
        (f"{FAULTY}[close_after_booking]",),
    ),
    Mutant(
        "a sweep that resends what is being sent",
        (
            Edit(
                "delivery.py",
                "                status=CommitmentStatus.IN_DOUBT,\n                due_at=None,\n",
                "                status=CommitmentStatus.QUEUED,\n                due_at=now,\n",
            ),
        ),
        (f"{KILLED}[before the record]",),
    ),
    Mutant(
        "5xx retried",
        (
            Edit(
                "client.py",
                "    _Row({429}, Verdict.LATER),\n",
                "    _Row({429}, Verdict.LATER),\n    _Row(range(500, 600), Verdict.NOT_SENT),\n",
            ),
        ),
        (f"{FAULTY}[status-500-True]",),
    ),
    Mutant(
        "no sweep",
        (Edit("delivery.py", "            self.park_abandoned()\n", "            pass\n"),),
        (f"{KILL}::test_a_sweep_killed_while_parking_is_finished_by_the_next[before]",),
    ),
    Mutant(
        "redirects on",
        (
            Edit(
                "wire.py",
                "    watchdog: Watchdog\n\n    def _get_conn(",
                "    watchdog: Watchdog\n\n    def urlopen(self, *args: Any, **kwargs: Any) -> Any:\n"
                '        kwargs.update(redirect=True, retries=__import__("urllib3").Retry(3, read=False))\n'
                "        return super().urlopen(*args, **kwargs)\n\n    def _get_conn(",
            ),
        ),
        (f"{FAULTY}[redirect-307]", "tests/test_client.py::test_a_redirect_is_not_followed"),
    ),
    Mutant(
        "max_retries=3",
        (Edit("transport.py", "max_retries=0)", "max_retries=3)"),),
        ("tests/test_wire.py::test_no_status_after_the_first_byte_is_in_doubt[TLS record error-tls]",),
    ),
    Mutant(
        "trust_env=True",
        (
            Edit(
                "client.py",
                "                proxy=self._endpoint.proxy,\n",
                "                proxy=self._endpoint.proxy\n"
                '                or requests.utils.get_environ_proxies(self._endpoint.url).get("http"),\n',
            ),
        ),
        ("tests/test_client.py::test_nothing_is_taken_from_the_environment",),
    ),
    Mutant(
        "one wide try around send and record",
        (
            Edit(
                "delivery.py",
                "        recorded = self.recording.record(calls)\n",
                "        try:\n"
                "            recorded = self.recording.record(calls)\n"
                "        except Exception:\n"
                "            rows = self.rows.filter(pk__in=[call.pk for call in calls])\n"
                '            rows.update(status="queued", due_at=self.now())\n'
                "            recorded = []\n",
            ),
        ),
        (
            "tests/proof/test_databases.py"
            "::test_a_database_that_stays_down_at_the_record_leaves_it_in_doubt_and_unsent_again",
        ),
    ),
    Mutant(
        "an unreadable 201 retried",
        (
            Edit(
                "client.py",
                "    _Row({201}, Verdict.ANSWERED),\n",
                "    _Row({201}, Verdict.ANSWERED, _is_object),\n    _Row({201}, Verdict.NOT_SENT),\n",
            ),
        ),
        (f"{FAULTY}[html_body]", f"{FAULTY}[truncated_json]"),
    ),
    Mutant(
        "requeue without a status check",
        (
            Edit("recording.py", "[(*values, call.pk, call.lease) for", "[(*values, call.pk) for"),
            Edit(
                "recording.py",
                '                keys=("id", "lease"),\n                statuses=OPEN,\n',
                '                keys=("id",),\n',
            ),
        ),
        (f"{LIMIT}::test_a_late_proof_never_overrides_a_person",),
    ),
    Mutant(
        "clock guard removed",
        (
            Edit(
                "wire.py",
                "        if self.send_before is not None and clock() >= self.send_before:\n",
                "        if False:\n",
            ),
        ),
        (f"{LIMIT}::test_a_worker_frozen_before_the_first_byte_never_adds_to_a_person_s_decision",),
    ),
)


def misplaced(root: Path = ROOT) -> list[str]:
    """Return the edits whose text is not found exactly once."""
    return [
        f"{mutant.name}: {edit.file} has it {count} times: {edit.old.strip()}"
        for mutant in MUTANTS
        for edit in mutant.edits
        if (count := edit.count(root)) != 1
    ]


def copy_source(target: Path) -> None:
    """Copy what the tests need."""
    ignore = shutil.ignore_patterns("__pycache__", ".mypy_cache")
    for name in (SOURCE, "tests"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, target / name)


def run_tests(root: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Run the tests against a copy; return pytest's code and what it said."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "-p", "no:cacheprovider", *tests],
        cwd=root,
        env={**environment, "PYTHONPATH": str(root), "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def catch(mutant: Mutant) -> str:
    """Return the test that fails because of the mutant, or ``""``.

    Raises:
        RuntimeError: The tests could not be run at all.
    """
    with tempfile.TemporaryDirectory(prefix="koo-mutant-") as folder:
        root = Path(folder)
        copy_source(root)
        for edit in mutant.edits:
            edit.apply(root)
        code, said = run_tests(root, mutant.tests)
    if code not in (0, 1):
        raise RuntimeError(f"{mutant.name}: pytest ended with {code}\n{said}")
    failed = re.search(r"^FAILED (\S+::\w+(?:\[[^\]]*\])?)", said, re.MULTILINE)
    return failed[1] if failed and code == 1 else ""


def main() -> int:
    """Let every mutant loose in turn; return 1 if one survives or the tests fail without any."""
    started = time.monotonic()
    if lost := misplaced():
        print("\n".join(lost))
        return 1
    with tempfile.TemporaryDirectory(prefix="koo-mutant-") as folder:
        copy_source(Path(folder))
        code, said = run_tests(Path(folder), sorted({test for mutant in MUTANTS for test in mutant.tests}))
    if code:
        print(f"The tests fail without any mutant:\n{said}")
        return 1
    caught = 0
    width = max(len(mutant.name) for mutant in MUTANTS)
    for mutant in MUTANTS:
        test = catch(mutant)
        caught += bool(test)
        print(f"{mutant.name:<{width}}  {test or 'SURVIVES'}", flush=True)
    print(f"{caught} of {len(MUTANTS)} caught in {time.monotonic() - started:.0f} s")
    return 0 if caught == len(MUTANTS) else 1


if __name__ == "__main__":
    sys.exit(main())
