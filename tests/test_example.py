"""The example shop, used as its customers and its staff use it: over HTTP, in a process of its own."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

import django_koomalooma
from example_project.demo_parts.shoppers import Shopper

MANAGE = Path(__file__).resolve().parent.parent / "example_project" / "manage.py"
OURS = ("DJANGO_", "KOOMALOOMA_", "CELERY_", "EXAMPLE_", "DATABASE_URL")


@dataclass(frozen=True)
class Shop:
    """A running shop whose points stay where they are recorded: it has no token."""

    url: str
    database: Path

    def commitments(self, goal: str, reference: str) -> list[tuple[str, float]]:
        """Return status and net value of what was recorded for an event."""
        with sqlite3.connect(self.database) as connection:
            found = connection.execute(
                "SELECT status, net_value FROM koomalooma_commitment WHERE goal = ? AND reference = ?",
                (goal, reference),
            ).fetchall()
        connection.close()
        return [(str(status), float(value)) for status, value in found]

    def session_id(self, reference: str) -> str:
        """Return the session id that was recorded with an order."""
        with sqlite3.connect(self.database) as connection:
            row = connection.execute(
                "SELECT session_id FROM koomalooma_commitment WHERE reference = ?", (reference,)
            ).fetchone()
        connection.close()
        return str(row[0])

    def user_id(self, name: str) -> str:
        """Return the primary key of an account."""
        with sqlite3.connect(self.database) as connection:
            row = connection.execute("SELECT id FROM auth_user WHERE username = ?", (name,)).fetchone()
        connection.close()
        return str(row[0])

    def order_id(self, number: str) -> str:
        """Return the primary key of an order."""
        with sqlite3.connect(self.database) as connection:
            row = connection.execute("SELECT id FROM shop_order WHERE number = ?", (number,)).fetchone()
        connection.close()
        return str(row[0])


def start_environment(folder: Path) -> dict[str, str]:
    """Return an environment for the example that nothing of the present one changes."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    package = Path(django_koomalooma.__file__).resolve().parent.parent
    return {
        **inherited,
        "PYTHONPATH": str(package),
        "EXAMPLE_DATA_DIR": str(folder),
        "KOOMALOOMA_API_TOKEN": "",
    }


@contextmanager
def serve(folder: Path, environment: dict[str, str]) -> Iterator[Shop]:
    """Make and fill the shop's database, and serve it until the end of the block."""
    for command in (["migrate", "-v0"], ["seed_shop"]):
        subprocess.run([sys.executable, MANAGE, *command], env=environment, check=True, timeout=120)
    announcement = folder / "shop.url"
    command = [sys.executable, str(MANAGE), "serve", "--port=0", f"--announce={announcement}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not announcement.exists():
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield Shop(announcement.read_text(), folder / "shop.sqlite3")
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with serve(folder, start_environment(folder)) as running:
        yield running


@pytest.fixture
def member(shop: Shop, request: pytest.FixtureRequest) -> Shopper:
    shopper = Shopper(shop.url)
    shopper.sign_up(member_name(request.node.name))
    return shopper


@pytest.fixture
def clerk(shop: Shop) -> Shopper:
    shopper = Shopper(shop.url)
    shopper.log_in("admin", "admin")
    return shopper


def member_name(test: str) -> str:
    return test.removeprefix("test_").partition("[")[0][:100]


def test_signing_up_earns_what_the_campaign_gives(shop: Shop) -> None:
    shopper = Shopper(shop.url)

    shopper.sign_up("newcomer")

    assert shop.commitments("signup", shop.user_id("newcomer")) == [("queued", 20.0)]


def test_a_paid_order_earns_its_total(shop: Shop, member: Shopper) -> None:
    number = member.order("mug", "mug", "candle", email="m@customer.example")

    member.pay(number)

    assert shop.commitments("purchase", number) == [("queued", 38.9)]
    assert "points on their way" in member.get(f"orders/{number}/").text


def test_the_page_and_the_points_share_one_session_id(shop: Shop, member: Shopper) -> None:
    number = member.order("mug", email="m@customer.example")
    page = member.get("orders/").text

    member.pay(number)

    (shown,) = re.findall(r'data-session-id="(\w+)"', page)
    assert shop.session_id(number) == shown
    assert shown not in member.session.cookies.get_dict().values()


def test_an_order_earns_nothing_before_it_is_paid(shop: Shop, member: Shopper) -> None:
    number = member.order("lamp", email="m@customer.example")

    page = member.get("orders/").text

    assert number in page
    assert "points after payment" in page
    assert shop.commitments("purchase", number) == []


def test_paying_twice_earns_once(shop: Shop, member: Shopper) -> None:
    number = member.order("plant", email="m@customer.example")
    member.pay(number)

    # The order's page has no button any more: the log-in page lends its form to the second click.
    member.submit("account/log-in/", f"orders/{number}/pay/")

    assert shop.commitments("purchase", number) == [("queued", 24.0)]


def test_cancelling_a_paid_order_withdraws_its_points(shop: Shop, member: Shopper) -> None:
    number = member.order("scarf", email="m@customer.example")
    member.pay(number)

    member.cancel(number)

    assert shop.commitments("purchase", number) == [("cancelled", 0.0)]
    assert "no points" in member.get(f"orders/{number}/").text


def test_cancelling_an_order_that_was_never_paid_records_nothing(shop: Shop, member: Shopper) -> None:
    number = member.order("scarf", email="m@customer.example")

    member.cancel(number)

    assert shop.commitments("purchase", number) == []
    assert "Cancelled" in member.get(f"orders/{number}/").text


def test_a_refund_in_part_lowers_what_the_points_are_worth(
    shop: Shop, member: Shopper, clerk: Shopper
) -> None:
    number = member.order("lamp", email="m@customer.example")
    member.pay(number)

    refund(shop, clerk, number, "20.00")

    assert shop.commitments("purchase", number) == [("queued", 69.0)]
    assert "€20.00" in member.get(f"orders/{number}/").text


@pytest.mark.parametrize("amount", ["89.01", "-1.00"], ids=["more than the order", "negative"])
def test_a_refund_that_cannot_be_changes_nothing(shop: Shop, clerk: Shopper, amount: str) -> None:
    member = Shopper(shop.url)
    member.sign_up(f"refunded{amount.strip('-.')}")
    number = member.order("lamp", email="m@customer.example")
    member.pay(number)

    page = refund(shop, clerk, number, amount)

    assert "The refund must be between 0.00 and 89.00." in page
    assert shop.commitments("purchase", number) == [("queued", 89.0)]


def test_staff_cancel_an_order_in_the_admin(shop: Shop, member: Shopper, clerk: Shopper) -> None:
    number = member.order("mug", email="m@customer.example")
    member.pay(number)

    clerk.submit(
        "admin/shop/order/",
        "admin/shop/order/",
        action="cancel_orders",
        _selected_action=shop.order_id(number),
    )

    assert shop.commitments("purchase", number) == [("cancelled", 0.0)]


def test_a_guest_gets_the_goods_and_a_reason_instead_of_points(shop: Shop) -> None:
    guest = Shopper(shop.url)
    number = guest.order("candle", email="guest@customer.example")

    guest.pay(number)

    assert shop.commitments("purchase", number) == [("skipped", 9.9)]
    assert "no points" in guest.get(f"orders/{number}/").text


def test_nobody_sees_or_pays_the_order_of_another(shop: Shop, member: Shopper) -> None:
    number = member.order("mug", email="m@customer.example")
    stranger = Shopper(shop.url)

    with pytest.raises(requests.HTTPError, match="404"):
        stranger.get(f"orders/{number}/")
    with pytest.raises(requests.HTTPError, match="404"):
        stranger.submit("account/log-in/", f"orders/{number}/pay/")

    assert shop.commitments("purchase", number) == []


def test_nothing_is_paid_without_a_csrf_token(shop: Shop, member: Shopper) -> None:
    number = member.order("mug", email="m@customer.example")

    answer = member.session.post(f"{shop.url}orders/{number}/pay/", timeout=20)

    assert answer.status_code == 403
    assert shop.commitments("purchase", number) == []


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("3", "€43.50"),
        ("0", "There is nothing in it yet."),
        ("many", "Please give a quantity from 0 to 20."),
        ("21", "Please give a quantity from 0 to 20."),
    ],
    ids=["more", "none", "not a number", "too many"],
)
def test_the_basket_follows_the_quantity(shop: Shop, quantity: str, words: str) -> None:
    shopper = Shopper(shop.url)
    shopper.submit("", "basket/mug/add/")

    page = shopper.submit("basket/", "basket/mug/", quantity=quantity)

    assert words in page.text


def test_checkout_with_an_empty_basket_leads_back_to_it(shop: Shop) -> None:
    page = Shopper(shop.url).get("checkout/")

    assert page.url == f"{shop.url}basket/"


def test_my_orders_asks_a_stranger_to_log_in(shop: Shop) -> None:
    page = Shopper(shop.url).get("orders/")

    assert page.url == f"{shop.url}account/log-in/?next=/orders/"


def refund(shop: Shop, clerk: Shopper, number: str, amount: str) -> str:
    page = f"admin/shop/order/{shop.order_id(number)}/change/"
    inline = {f"lines-{name}_FORMS": "0" for name in ("TOTAL", "INITIAL", "MIN_NUM", "MAX_NUM")}
    return clerk.submit(page, page, refunded_total=amount, **inline).text
