"""Shoppers: they use the storefront as a browser does, over HTTP, with cookies and CSRF tokens."""

import re
from dataclasses import dataclass
from urllib.parse import urljoin

import requests

PASSWORD = "correct-horse-battery"
TIMEOUT = 20
CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class Shopper:
    """One visitor of the shop with a browser's memory."""

    def __init__(self, shop_url: str) -> None:
        self.shop_url = shop_url
        self.session = requests.Session()
        # The shop is on loopback; a proxy from the environment has no business there.
        self.session.trust_env = False

    def get(self, path: str) -> requests.Response:
        """Open a page, and complain when there is none."""
        response = self.session.get(urljoin(self.shop_url, path), timeout=TIMEOUT)
        response.raise_for_status()
        return response

    def submit(self, page: str, path: str, **fields: str) -> requests.Response:
        """Open a page, fill in its form and send it to the path."""
        url = urljoin(self.shop_url, path)
        token = CSRF.search(self.get(page).text)
        if token is None:
            raise LookupError(f"There is no form on {page}.")
        response = self.session.post(
            url, data={"csrfmiddlewaretoken": token[1], **fields}, headers={"Referer": url}, timeout=TIMEOUT
        )
        response.raise_for_status()
        return response

    def sign_up(self, name: str) -> None:
        """Open an account.

        Raises:
            ValueError: The shop did not take it.
        """
        answer = self.submit(
            "account/sign-up/",
            "account/sign-up/",
            username=name,
            email=f"{name}@customer.example",
            password1=PASSWORD,
            password2=PASSWORD,
        )
        if "Log out" not in answer.text:
            raise ValueError(f"The shop did not open an account for {name}.")

    def log_in(self, name: str, password: str = PASSWORD) -> None:
        """Log in to the shop (and, for staff, to the admin)."""
        answer = self.submit("account/log-in/", "account/log-in/", username=name, password=password)
        if "Log out" not in answer.text:
            raise ValueError(f"The shop did not let {name} in.")

    def order(self, *products: str, email: str) -> str:
        """Fill the basket, place the order and return its number."""
        for slug in products:
            self.submit("", f"basket/{slug}/add/")
        page = self.submit("checkout/", "checkout/", email=email)
        return page.url.rstrip("/").rpartition("/")[2]

    def pay(self, number: str) -> None:
        """Press the button of the pretend payment."""
        self.submit(f"orders/{number}/", f"orders/{number}/pay/")

    def cancel(self, number: str) -> None:
        """Cancel an order."""
        self.submit(f"orders/{number}/", f"orders/{number}/cancel/")


@dataclass(frozen=True)
class Errand:
    """What one shopper came for: orders to pay, orders to leave unpaid."""

    name: str
    is_member: bool
    paid: tuple[tuple[str, ...], ...]
    unpaid: tuple[tuple[str, ...], ...] = ()


ERRANDS = (
    Errand("anna", True, paid=(("mug", "mug", "candle"), ("lamp",))),
    Errand("ben", True, paid=(("scarf", "notebook"),)),
    Errand("chloe", True, paid=(("plant",),), unpaid=(("lamp", "lamp"),)),
    Errand("a guest", False, paid=(("candle",),)),
)


def run_errand(shop_url: str, errand: Errand, suffix: str) -> None:
    """Send one shopper through the shop.

    Args:
        suffix: Makes the member's name new in a database that has seen a demo before.
    """
    shopper = Shopper(shop_url)
    name = f"{errand.name.replace(' ', '-')}{suffix}"
    if errand.is_member:
        shopper.sign_up(name)
    for products in errand.paid:
        shopper.pay(shopper.order(*products, email=f"{name}@customer.example"))
    for products in errand.unpaid:
        shopper.order(*products, email=f"{name}@customer.example")
