"""A shopper process of the long run: pays, rolls back, repeats, amends and cancels until it is killed."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal

import django

ENOUGH = 150  # rows that wait: more would only make the end longer


class RolledBack(Exception):
    """The shop changed its mind before the commit."""


def main() -> None:
    """Shop for ever: ``python -m tests.proof.shopper NAME SEED PAUSE``."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.proof.settings")
    django.setup()
    from tests.proof import app  # noqa: F401 - makes it Celery's current app, for the wake-ups

    name, seed, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
    shop(name, random.Random(f"{seed} {name}"), pause)


def shop(name: str, dice: random.Random, pause: float) -> None:
    """Shop for ever; ``name`` makes the references unique."""
    from django.contrib.auth import get_user_model
    from django.db import DatabaseError, connection, transaction

    from django_koomalooma.earning import amend, cancel
    from django_koomalooma.models import Commitment
    from tests.proof.shop import Order, paid, pay

    def roll_back(reference: str, customer: str) -> None:
        try:
            with transaction.atomic():
                pay(reference, customer=customer)
                raise RolledBack
        except RolledBack:
            pass

    def signal_twice_at_once(reference: str, customer: str) -> None:
        def pay_once() -> None:
            with transaction.atomic():
                paid(reference, customer=customer)
                order = Order(reference=reference, value=Decimal(100))
                Order.objects.bulk_create([order], ignore_conflicts=True)

        threads = [threading.Thread(target=in_thread(pay_once)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def in_thread(act: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                act()
            finally:
                connection.close()

        return run

    def change(reference: str, customer: str) -> None:
        pay(reference, customer=customer)
        time.sleep(dice.random() / 5)
        if dice.random() < 0.5:
            amend("purchase", reference, Decimal("40.00"))
        else:
            cancel("purchase", reference)

    def change_first(reference: str, customer: str) -> None:
        amend("purchase", reference, Decimal("60.00"))
        pay(reference, customer=customer)

    acts: list[tuple[int, Callable[[str, str], object]]] = [
        (75, lambda reference, customer: pay(reference, customer=customer, signals=dice.choice([1, 1, 2]))),
        (7, roll_back),
        (6, signal_twice_at_once),
        (8, change),
        (4, change_first),
    ]
    customers = get_user_model().objects
    for number in itertools.count(1):
        customer = f"customer-{dice.randrange(300)}"
        customers.get_or_create(username=customer)
        (act,) = dice.choices([act for _, act in acts], [weight for weight, _ in acts])
        try:
            act(f"{name}-{number}", customer)
        except DatabaseError as error:  # a customer who meets a busy database tries another order
            print(f"{name}-{number}: {error}", file=sys.stderr)
        time.sleep(pause * dice.random() * 2)
        while number % 10 == 0 and Commitment.objects.open().count() > ENOUGH:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
