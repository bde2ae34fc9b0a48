"""A customer buys in the example shop with a real browser, and a clerk sees the points in the admin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from django_koomalooma.sandbox import Sandbox
from tests.test_example import MANAGE, serve, start_environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def pages(browser: Browser) -> Iterator[Page]:
    """A page of a browser of this test's own, as wide as a telephone."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


def test_a_paid_order_becomes_points_that_customer_and_clerk_see(pages: Page, tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        settings = {name: str(value) for name, value in sandbox.settings().items()}
        environment = start_environment(tmp_path) | settings
        with serve(tmp_path, environment) as shop:
            pages.goto(shop.url + "account/sign-up/")
            pages.get_by_label("Username").fill("grace")
            pages.get_by_label("Email").fill("grace@customer.example")
            pages.locator("#id_password1").fill("correct-horse-battery")
            pages.locator("#id_password2").fill("correct-horse-battery")
            pages.get_by_role("button", name="Open an account").click()
            pages.locator("li.product button").first.click()
            pages.goto(shop.url + "checkout/")
            pages.get_by_role("main").get_by_role("button").first.click()
            pages.get_by_role("button", name="Pay").click()
            waiting = pages.locator(".points").inner_text()

            subprocess.run(
                [sys.executable, MANAGE, "koomalooma_deliver"], env=environment, check=True, timeout=120
            )
            pages.reload()
            sent = pages.locator(".points").inner_text()
            number = pages.get_by_role("heading", level=1).inner_text().removeprefix("Order ")
            pages.get_by_role("button", name="Log out").click()
            pages.goto(shop.url + "admin/koomalooma/commitment/")
            pages.get_by_label("Username").fill("admin")
            pages.get_by_label("Password").fill("admin")
            pages.get_by_role("button", name="Log in").click()
            row = pages.locator("#result_list tbody tr", has_text=number).inner_text()

        (booking,) = [one for one in sandbox.bookings() if number in one["promotion_goal_description"]]

    assert waiting == "points on their way"
    assert sent == f"{booking['loyalty_units']:,} points"
    assert "Sent" in row
    assert str(booking["loyalty_units"]) in row
