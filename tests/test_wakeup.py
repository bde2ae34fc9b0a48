"""The wake-up: it reaches the shop's worker, and the checkout never notices what state the broker is in."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery, current_app
from celery.signals import after_task_publish
from django.db import connections, transaction
from kombu.transport import TRANSPORT_ALIASES
from pytest_django import Settings

from django_koomalooma import wakeup
from tests import broker_faults, services

BOUND = 1.5  # seconds: the slowest failure seen takes three time-outs of 0.2 s; a busy machine gets the rest

MakeApp = Callable[..., Celery]


@pytest.fixture(autouse=True)
def own_herald(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[dict[int, Any]]:
    """Give each test a process without a thread, and end the thread that it makes."""
    settings.KOOMALOOMA_WAKE_UP = True
    heralds: dict[int, Any] = {}
    monkeypatch.setattr(wakeup, "_heralds", heralds)
    yield heralds
    for herald in heralds.values():
        end(herald)


def end(herald: Any) -> None:
    """End the thread, for certain."""
    herald._leave()
    herald._thread.join(5)
    assert not herald._thread.is_alive()


@pytest.fixture
def make_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeApp]:
    """Make a Celery app the shop's current one for the length of a test."""
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.delenv(name, raising=False)
    before = current_app._get_current_object()

    def make(broker: str | None = "memory://", **conf: Any) -> Celery:
        app = Celery("shop", broker=broker, fixups=[])
        app.conf.update({"task_default_queue": f"koomalooma-{uuid.uuid4().hex}", **conf})
        return app

    yield make
    before.set_current()


@pytest.fixture
def sent() -> Iterator[list[Any]]:
    """What Celery has really published, each with the time of it."""
    messages: list[Any] = []

    def keep(*, body: Any, headers: dict[str, Any], **_: Any) -> None:
        messages.append(SimpleNamespace(at=time.monotonic(), body=body, headers=headers))

    after_task_publish.connect(keep)
    yield messages
    after_task_publish.disconnect(keep)


@pytest.fixture
def second_database() -> Iterator[str]:
    """Another database of the shop, never connected to."""
    connections.settings["second"] = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {},
    }
    yield "second"
    del connections["second"], connections.settings["second"]


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def take(app: Celery, queue: str | None = None) -> Any:
    """Take one message from the queue, then delete the queue."""
    name = queue or app.conf.task_default_queue
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        bound = app.amqp.queues[name](channel)
        bound.declare()  # else kombu does not know which of its keys in Redis belong to the queue
        message = channel.basic_get(name, no_ack=True)
        bound.delete()
    return message


def throwaway_redis() -> broker_faults.ThrowawayRedis:
    pytest.importorskip("redis", reason="the Redis client is not installed")
    try:
        return broker_faults.ThrowawayRedis()
    except FileNotFoundError as exc:
        pytest.skip(str(exc))


@contextlib.contextmanager
def fault(name: str) -> Iterator[str]:
    """The URL of a broker in that state."""
    transport, state = name.split(" ", 1)
    if transport.startswith("redis"):
        pytest.importorskip("redis", reason="the Redis client is not installed")
    with contextlib.ExitStack() as stack:
        if state in ("frozen", "killed") and transport == "redis":
            server = stack.enter_context(throwaway_redis())
            {"frozen": server.freeze, "killed": server.kill}[state]()
            yield server.url
            return
        if transport == "rabbitmq":
            parts = urlsplit(services.RABBITMQ)

            def through(proxy: broker_faults.Proxy) -> str:
                stack.enter_context(proxy)
                address = f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}"
                return parts._replace(netloc=address).geturl()

            whole = broker_faults.Proxy(parts.port or 5672)
            url = through(whole)
            if state == "frozen":
                whole.freeze()
            else:
                with Celery(broker=url, set_as_current=False, fixups=[]).connection_for_write() as connection:
                    connection.connect()
                    handshake = whole.answered
                # The handshake comes through, then the head of the next frame and two bytes of its body.
                url = through(broker_faults.Proxy(parts.port or 5672, answer_bytes=handshake + 9))
            yield url
            return
        make_port = {
            "refused": broker_faults.refused_port,
            "black hole": broker_faults.black_hole,
            "silent": broker_faults.silent_port,
        }[state]
        port = stack.enter_context(make_port())
        yield f"{transport}://127.0.0.1:{port}/" + ("?ssl_cert_reqs=none" if transport == "rediss" else "")


FAULTS = [
    "amqp refused",
    "amqp black hole",
    "amqp silent",
    "amqps silent",
    *(
        pytest.param(name, marks=pytest.mark.redis)
        for name in (
            "redis refused",
            "redis black hole",
            "redis silent",
            "rediss silent",
            "redis frozen",
            "redis killed",
        )
    ),
    *(
        pytest.param(name, marks=pytest.mark.rabbitmq)
        for name in ("rabbitmq frozen", "rabbitmq silent inside a frame")
    ),
]


# What is sent


def check_is_bare_wake_up(message: Any) -> None:
    assert message.content_type == "application/json"
    args, kwargs, _embedded = json.loads(message.body)
    assert (args, kwargs) == ([], {"sweep": False})
    assert message.headers["task"] == "django_koomalooma.tasks.deliver_due"
    assert message.headers["ignore_result"] is True
    assert message.headers["eta"] is None


def test_publish_sends_the_task_by_its_name_and_without_ids(make_app: MakeApp) -> None:
    app = make_app()

    answer = wakeup.publish()

    assert answer is True
    check_is_bare_wake_up(take(app))


@pytest.mark.redis
def test_publish_reaches_redis(make_app: MakeApp) -> None:
    app = make_app(services.REDIS)

    answer = wakeup.publish()

    assert answer is True
    check_is_bare_wake_up(take(app))


@pytest.mark.rabbitmq
def test_publish_reaches_rabbitmq(make_app: MakeApp) -> None:
    app = make_app(services.RABBITMQ)

    answer = wakeup.publish()

    assert answer is True
    check_is_bare_wake_up(take(app))


def test_publish_follows_the_routes_of_the_shop(make_app: MakeApp) -> None:
    app = make_app(task_routes={"django_koomalooma.tasks.*": {"queue": "koomalooma-loyalty"}})

    wakeup.publish()

    check_is_bare_wake_up(take(app, "koomalooma-loyalty"))


def test_publish_is_json_where_the_shop_prefers_pickle(make_app: MakeApp) -> None:
    app = make_app(task_serializer="pickle")

    wakeup.publish()

    check_is_bare_wake_up(take(app))


def test_publish_does_not_load_the_result_backend_of_the_shop(make_app: MakeApp) -> None:
    make_app(result_backend="nowhere.to.be.found:Backend")

    answer = wakeup.publish()

    assert answer is True


def test_publish_tries_the_next_broker_of_a_list(make_app: MakeApp) -> None:
    with broker_faults.refused_port() as port:
        app = make_app(f"amqp://127.0.0.1:{port}//;memory://")

        answer = wakeup.publish()

    assert answer is True
    app.conf.broker_url = "memory://"
    check_is_bare_wake_up(take(app))


# Where none is wanted


def test_publish_dials_nobody_where_celery_has_no_broker(make_app: MakeApp, sent: list[Any]) -> None:
    app = make_app(None)
    app.connection_for_write = lambda **_: pytest.fail("a connection was made")

    answer = wakeup.publish()

    assert answer is False
    assert sent == []


def test_publish_reads_the_broker_from_the_environment(
    make_app: MakeApp, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_app(None)
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")

    answer = wakeup.publish()

    assert answer is True
    assert len(sent) == 1


def test_publish_sends_nothing_where_celery_is_eager(make_app: MakeApp, sent: list[Any]) -> None:
    app = make_app(task_always_eager=True)
    app.connection_for_write = lambda **_: pytest.fail("a connection was made")

    answer = wakeup.publish()

    assert answer is False
    assert sent == []


def test_notify_makes_no_thread_where_wake_ups_are_switched_off(
    make_app: MakeApp, sent: list[Any], settings: Settings, own_herald: dict[int, Any]
) -> None:
    make_app()
    settings.KOOMALOOMA_WAKE_UP = False

    wakeup.notify()

    assert own_herald == {}
    assert wakeup.publish() is False
    assert sent == []


def test_is_reachable_tells_a_broker_that_answers_and_sends_nothing(
    make_app: MakeApp, sent: list[Any]
) -> None:
    with broker_faults.refused_port() as port:
        answers = [wakeup.is_reachable(make_app(url)) for url in ("memory://", f"amqp://127.0.0.1:{port}//")]

    assert answers == [True, False]
    assert sent == []


def test_is_reachable_dials_nobody_where_celery_has_no_broker(make_app: MakeApp) -> None:
    app = make_app(None)
    app.connection_for_write = lambda **_: pytest.fail("a connection was made")

    answer = wakeup.is_reachable()

    assert answer is False


# When it is sent


@pytest.mark.django_db(transaction=True)
def test_after_commit_wakes_a_worker_once_the_order_is_committed(make_app: MakeApp, sent: list[Any]) -> None:
    make_app()

    with transaction.atomic():
        wakeup.after_commit("default")
        time.sleep(0.1)
        before_the_commit = list(sent)

    assert before_the_commit == []
    assert wait_for(lambda: len(sent) == 1)


@pytest.mark.django_db(transaction=True)
def test_after_commit_wakes_nobody_after_a_rollback(
    make_app: MakeApp, own_herald: dict[int, Any], sent: list[Any]
) -> None:
    make_app()

    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        wakeup.after_commit("default")
        raise ZeroDivisionError

    time.sleep(0.1)
    assert own_herald == {}
    assert sent == []


def test_after_commit_waits_for_the_database_that_it_is_told(second_database: str) -> None:
    # As inside a transaction there; no statement is needed to see where the callback is kept.
    connections[second_database].in_atomic_block = True

    wakeup.after_commit(second_database)

    assert [entry[1] for entry in connections["second"].run_on_commit] == [wakeup.notify]
    assert connections["default"].run_on_commit == []


@pytest.mark.django_db(transaction=True)
def test_after_commit_outside_a_transaction_wakes_at_once(make_app: MakeApp, sent: list[Any]) -> None:
    make_app()

    wakeup.after_commit("default")

    assert wait_for(lambda: len(sent) == 1)


def test_a_burst_of_a_thousand_is_two_wake_ups_with_the_last_one_included(
    make_app: MakeApp, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeup, "QUIET", 1.0)
    make_app()
    started = time.monotonic()

    for number in range(1000):
        wakeup.notify()
        if number % 50 == 0:
            time.sleep(0.03)
    last = time.monotonic()

    assert last - started < 1.0
    assert wait_for(lambda: len(sent) == 2)
    time.sleep(0.2)
    first, second = (message.at for message in sent)
    assert second - first >= 0.99
    assert second > last


def test_after_a_failure_there_is_a_pause_and_then_what_came_meanwhile_is_told(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def fail_once(app: Celery | None = None) -> bool:
        tried.append(time.monotonic())
        return len(tried) > 1

    monkeypatch.setattr(wakeup, "publish", fail_once)
    monkeypatch.setattr(wakeup, "QUIET", 0.01)
    monkeypatch.setattr(wakeup, "BACK_OFF", 0.6)
    make_app()

    for _ in range(20):
        wakeup.notify()
        time.sleep(0.01)

    assert len(tried) == 1
    assert wait_for(lambda: len(tried) == 2)
    assert tried[1] - tried[0] >= 0.59
    time.sleep(0.1)
    assert len(tried) == 2


def test_the_pauses_are_one_second_and_thirty() -> None:
    assert (wakeup.QUIET, wakeup.BACK_OFF, wakeup.TIMEOUT) == (1.0, 30.0, 0.2)


def test_what_is_committed_while_a_wake_up_is_on_its_way_gets_another(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Celery | None] = []

    def commit_meanwhile(app: Celery | None = None) -> bool:
        tried.append(app)
        if len(tried) == 1:
            wakeup.notify()
        return True

    monkeypatch.setattr(wakeup, "publish", commit_meanwhile)
    monkeypatch.setattr(wakeup, "QUIET", 0.01)
    make_app()

    wakeup.notify()

    assert wait_for(lambda: len(tried) == 2)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # the thread dies on purpose
def test_a_thread_that_died_is_replaced(
    make_app: MakeApp, own_herald: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Celery | None] = []

    def exit_once(app: Celery | None = None) -> bool:
        tried.append(app)
        if len(tried) == 1:
            raise SystemExit
        return True

    monkeypatch.setattr(wakeup, "publish", exit_once)
    app = make_app()
    wakeup.notify()
    assert wait_for(lambda: not own_herald[os.getpid()]._thread.is_alive())

    wakeup.notify()

    assert wait_for(lambda: tried == [app, app])


# Faults


@pytest.mark.parametrize("name", FAULTS)
def test_publish_fails_in_bounded_time_and_only_the_log_hears_of_it(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    answers: list[bool] = []
    with fault(name) as url:
        app = make_app(url)
        # In a thread, so that an attempt without an end fails this test instead of stopping the suite.
        attempt = threading.Thread(target=lambda: answers.append(wakeup.publish(app)), daemon=True)

        attempt.start()
        attempt.join(BOUND)

        assert answers == [False]
        assert caplog.text.count("A wake-up could not be sent") == 1


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.django_db(transaction=True)
def test_the_checkout_does_not_notice_a_broken_broker(
    make_app: MakeApp, name: str, own_herald: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without pauses the thread is at the broker all the time, which is worse than life.
    monkeypatch.setattr(wakeup, "QUIET", 0.0)
    monkeypatch.setattr(wakeup, "BACK_OFF", 0.0)

    def checkouts(seconds: float) -> list[float]:
        costs = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            started = time.perf_counter()
            with transaction.atomic():
                wakeup.after_commit("default")
            costs.append(time.perf_counter() - started)
            time.sleep(0.002)
        return sorted(costs)

    make_app("memory://")
    healthy = checkouts(0.2)
    end(own_herald.pop(os.getpid()))
    with fault(name) as url:
        make_app(url)
        broken = checkouts(0.4)
        thread_was_there = own_herald[os.getpid()]._thread.is_alive()
        end(own_herald.pop(os.getpid()))  # before the port closes: a reset while TLS begins leaks a socket

    assert thread_was_there
    # To talk to this broker would cost 0.2 s or, refused, the making of a connection each time.
    assert broken[-1] < wakeup.TIMEOUT
    assert broken[int(len(broken) * 0.95)] < 0.005
    assert statistics.median(broken) < max(5 * statistics.median(healthy), 0.001)


@pytest.mark.redis
def test_a_wake_up_lost_with_its_broker_is_not_noticed_by_the_shop(make_app: MakeApp) -> None:
    with throwaway_redis() as server:
        make_app(server.url)
        before = wakeup.publish()
        server.kill()

        after = wakeup.publish()

    assert (before, after) == (True, False)


@pytest.mark.redis
def test_a_broker_that_thaws_is_told_again(make_app: MakeApp) -> None:
    with throwaway_redis() as server:
        app = make_app(server.url)
        server.freeze()
        frozen = wakeup.publish()
        server.thaw()

        thawed = wakeup.publish()

        assert (frozen, thawed) == (False, True)
        check_is_bare_wake_up(take(app))


@pytest.mark.django_db(transaction=True)
def test_a_broken_celery_configuration_does_not_reach_the_shop(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = Celery("shop", fixups=[])
    app.config_from_object("no_such_module_of_the_shop")

    with transaction.atomic():
        wakeup.after_commit("default")

    assert wait_for(lambda: "could not be sent" in caplog.text)
    assert caplog.records[-1].levelno == logging.WARNING


def test_a_bad_broker_url_is_logged_without_its_password(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    make_app("amqp://guest:pass/word@127.0.0.1//")

    answer = wakeup.publish()

    assert answer is False
    assert "A wake-up could not be sent (ValueError); the sweep delivers." in caplog.text
    assert "pass" not in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'redis'"), "ModuleNotFoundError: No module named 'redis'"),
        (ImportError("Missing redis library"), "ImportError: Missing redis library"),
        (ValueError("redis://:hunter2@broker"), "ValueError"),
    ],
    ids=["module", "import", "other"],
)
def test_of_an_error_only_a_missing_module_is_named(error: Exception, words: str) -> None:
    outer = OSError("redis://:hunter2@broker")
    outer.__cause__ = error

    assert (wakeup.name_error(error), wakeup.name_error(outer)) == (words, words)


def test_a_transport_that_is_not_installed_is_named_in_the_log(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "nodriver", "no_driver:Transport")
    make_app("nodriver://guest:hunter2@127.0.0.1//")

    assert wakeup.publish() is False
    assert "(ModuleNotFoundError: No module named 'no_driver')" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_wrong_setting_does_not_reach_the_shop(
    make_app: MakeApp, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    make_app()
    settings.KOOMALOOMA_WAKE_UP = "yes"

    wakeup.notify()

    assert "No wake-up is sent (ConfigurationError)" in caplog.text


def test_an_unknown_database_does_not_reach_the_shop(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    make_app()

    wakeup.after_commit("no-such-alias")

    assert "No wake-up is registered (ConnectionDoesNotExist)" in caplog.text


# Processes


def run_script(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a short-lived program of a shop whose broker is a folder or the URL given."""
    head = """
        import os, sys, time
        from django.conf import settings
        settings.configure()
        from celery import Celery, signals
        from django_koomalooma import wakeup
        broker, folder = sys.argv[1], sys.argv[2]
        app = Celery("shop", broker=broker, fixups=[])
        app.conf.broker_transport_options = {
            name: folder for name in ("data_folder_in", "data_folder_out", "control_folder")
        } if broker.startswith("filesystem") else {}
        sent = []
        keep = lambda **kwargs: sent.append(os.getpid())
        signals.after_task_publish.connect(keep)
        def wait_for_sent(number):
            until = time.monotonic() + 5
            while len(sent) < number and time.monotonic() < until:
                time.sleep(0.01)
    """
    return subprocess.run(
        # Python 3.12 warns of every fork beside a thread; to survive just that is what is tried here.
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(head) + textwrap.dedent(body), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parent.parent,
        env={name: value for name, value in os.environ.items() if not name.startswith("CELERY_")},
    )


@pytest.mark.parametrize("lock", ["free", "held"])
def test_a_forked_process_has_a_thread_of_its_own_whatever_the_parent_was_doing(
    tmp_path: Path, lock: str
) -> None:
    body = """
        wakeup.notify()
        wait_for_sent(1)
        herald = wakeup._heralds[os.getpid()]
        if sys.argv[3] == "held":
            herald._changed.acquire()
        child = os.fork()
        if not child:
            sent.clear()
            wakeup.notify()
            wait_for_sent(1)
            print(sent == [os.getpid()], flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        if sys.argv[3] == "held":
            herald._changed.release()
        print(sent == [os.getpid()])
    """

    result = run_script(body, "filesystem://", str(tmp_path), lock)

    assert result.stdout == "True\nTrue\n"


def test_a_command_that_ends_at_once_still_sends_its_wake_up(tmp_path: Path) -> None:
    result = run_script("wakeup.notify()", "filesystem://", str(tmp_path))

    messages = list(tmp_path.glob("*.msg"))
    assert len(messages) == 1, result.stderr


def test_a_command_that_ends_in_the_quiet_second_still_sends_the_last_one(tmp_path: Path) -> None:
    body = """
        wakeup.QUIET = 60
        wakeup.notify()
        wait_for_sent(1)
        wakeup.notify()
    """

    run_script(body, "filesystem://", str(tmp_path))

    assert len(list(tmp_path.glob("*.msg"))) == 2


@pytest.mark.parametrize(
    ("pause", "most"),
    [("0", 1.5), ("1", 0.3)],
    ids=["at the broker", "in the pause after a failure"],
)
def test_a_command_is_not_held_up_at_its_end_by_a_silent_broker(
    tmp_path: Path, pause: str, most: float
) -> None:
    body = """
        import atexit
        wakeup.TIMEOUT = 20.0 if sys.argv[3] == "0" else 0.05
        atexit.register(lambda: print(time.monotonic() - ended))
        wakeup.notify()
        time.sleep(float(sys.argv[3]))
        wakeup.notify()
        # What is registered first is called last: this measures the wake-up's own farewell.
        ended = time.monotonic()
    """

    with broker_faults.silent_port() as port:
        result = run_script(body, f"amqp://127.0.0.1:{port}//", str(tmp_path), pause)

    assert float(result.stdout) < most
