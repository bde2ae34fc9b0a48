"""Everything that can go wrong between a shop and koomalooma, by name, and the orders to let it happen.

One catalogue: the command's help and the manual list it. Each fault says whether the commitment is booked.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from . import spoilt
from .rules import Call
from .wire import Reply, Request, Wire

Options = Mapping[str, Any]
Act = Callable[[Wire, Request, Reply, Options], None]
Aim = Literal["users", "commitments", "any"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail.

    Attributes:
        books: whether the commitment is booked (or the user made) first; the option `book` says otherwise.
        share: how much of the request's body is read before it happens; None means not a byte of the request.
        options: the options it knows, with their defaults.
        delays_booking: whether the option `seconds` is waited for before the booking.
    """

    sentence: str
    books: bool
    act: Act
    options: Options = field(default_factory=dict)
    share: float | None = 1.0
    delays_booking: bool = False

    def applies(self, reply: Reply, *, book: bool) -> bool:
        """Tell whether it happens: what cannot be booked is refused as ever, and the fault used up."""
        return reply.status == 201 or not (self.books or book)


FAULTS: dict[str, Fault] = {
    "close_before_reading": Fault("Closes without reading the request.", False, spoilt.close, share=None),
    "reset_before_reading": Fault("Resets without reading the request.", False, spoilt.reset, share=None),
    "part_read": Fault("Reads half of the body, then resets.", False, spoilt.reset, share=0.5),
    "close_before_booking": Fault("Reads the request, then closes.", False, spoilt.close),
    "reset_before_booking": Fault("Reads the request, then resets.", False, spoilt.reset),
    "silence_before_booking": Fault(
        "Reads the request and says nothing for `seconds`, then closes.",
        False,
        spoilt.silence,
        {"seconds": 60.0},
    ),
    "close_after_booking": Fault("Books, then closes without an answer.", True, spoilt.close),
    "reset_after_booking": Fault("Books, then resets without an answer.", True, spoilt.reset),
    "silence_after_booking": Fault(
        "Books and says nothing for `seconds`, then closes.", True, spoilt.silence, {"seconds": 60.0}
    ),
    "late_201": Fault("Books, and answers after `seconds`.", True, spoilt.late, {"seconds": 30.0}),
    "late_booking": Fault(
        "Waits for `seconds`, books even if the client has gone by then, and answers.",
        True,
        spoilt.answer,
        {"seconds": 30.0},
        delays_booking=True,
    ),
    "garbage_status_line": Fault("Books, and answers with a line that is not HTTP.", True, spoilt.garbage),
    "short_body": Fault("Books; 201 with half of the promised body, then closes.", True, spoilt.short_body),
    "stalled_body": Fault(
        "Books; 201 with half of the body, then nothing for `seconds`.",
        True,
        spoilt.stalled_body,
        {"seconds": 60.0},
    ),
    "reset_body": Fault("Books; 201 with half of the body, then a reset.", True, spoilt.reset_body),
    "bad_gzip": Fault("Books; 201 whose body claims to be gzip and is not.", True, spoilt.bad_gzip),
    "truncated_json": Fault("Books; 201 with JSON cut in the middle.", True, spoilt.truncated_json),
    "empty_body": Fault("Books; 201 without a body.", True, spoilt.empty_body),
    "html_body": Fault("Books; 201 with an HTML page.", True, spoilt.html_body),
    "huge_body": Fault(
        "Books; 201 with a body of `bytes` more than usual.", True, spoilt.huge_body, {"bytes": 10_000_000}
    ),
    "deep_json": Fault(
        "Books; 201 with JSON nested `depth` levels deep.", True, spoilt.deep_json, {"depth": 100_000}
    ),
    "nul_in_body": Fault("Books; 201 with NUL characters in its strings.", True, spoilt.nul_in_body),
    "odd_types": Fault("Books; 201 with values of other types than promised.", True, spoilt.odd_types),
    "drip_status": Fault(
        "Books; the status line comes a byte at a time, `every` seconds.",
        True,
        spoilt.drip_status,
        {"every": 0.5},
    ),
    "drip_headers": Fault(
        "Books; the headers come a byte at a time, `every` seconds.",
        True,
        spoilt.drip_headers,
        {"every": 0.5},
    ),
    "drip_body": Fault(
        "Books; the body comes a byte at a time, `every` seconds.", True, spoilt.drip_body, {"every": 0.5}
    ),
    "status": Fault(
        "Answers with `status` (`book`: whether it books), `body`, `headers` and `retry_after`.",
        False,
        spoilt.status,
        {"status": 503, "body": "", "headers": {}, "retry_after": None},
    ),
    "ok_200_commitment": Fault("Books; 200 with the Commitment, instead of 201.", True, spoilt.ok_200),
    "ok_200_html": Fault("Books nothing; 200 with a login page.", False, spoilt.ok_200_html),
    "redirect": Fault(
        "Books nothing; answers `status` and sends the client to `location` (default: the same address).",
        False,
        spoilt.redirect,
        {"status": 307, "location": None},
    ),
    "own_user_id": Fault(
        "For users: knows the user by an id of its own, and answers it in the field `field`.",
        True,
        spoilt.own_user_id,
        {"field": "user_id", "user_id": "koo-7/é"},
    ),
}


@dataclass(slots=True)
class Order:
    """A fault that has been ordered: for which calls, how often, and how."""

    name: str
    fault: Fault
    call: Aim
    left: int | None
    probability: float
    book: bool
    options: Options


class Orders:
    """The faults still to come; the first one ordered that fits a call is used first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[Order] = []
        self._dice = random.SystemRandom()

    def add(
        self,
        name: str,
        /,
        *,
        times: int | None = 1,
        call: Aim = "commitments",
        probability: float = 1.0,
        **options: Any,
    ) -> None:
        """Order a fault.

        Args:
            times: how many calls it spoils; None for every one until `clear`.
            probability: from 0 to 1, how likely each call is spoilt.
            options: those of the fault, and `book` to overrule whether it books.

        Raises:
            ValueError: there is no such fault, call or option.
        """
        fault = FAULTS.get(name)
        if fault is None:
            raise ValueError(f"no fault is called {name!r}; there are {', '.join(FAULTS)}")
        if call not in get_args(Aim):
            raise ValueError(f"call must be one of {', '.join(get_args(Aim))}, not {call!r}")
        if not (times is None or (isinstance(times, int) and times > 0)):
            raise ValueError(f"times must be a number from 1, or None for always, not {times!r}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, not {probability!r}")
        book = options.pop("book", fault.books)
        if not isinstance(book, bool) or (book and fault.share != 1.0):
            raise ValueError(f"book={book!r} is not possible for {name}")
        for option, value in options.items():
            if option not in fault.options:
                raise ValueError(
                    f"{name} has no option {option!r}; it has {', '.join(fault.options) or 'none'}"
                )
            if isinstance(fault.options[option], int | float) and not _is_amount(value):
                raise ValueError(f"{option} of {name} must be a number from 0, not {value!r}")
        order = Order(name, fault, call, times, probability, book, {**fault.options, **options})
        with self._lock:
            self._orders.append(order)

    def take(self, call: Call) -> Order | None:
        """Return the fault that this call is to suffer, and count it."""
        if not self._orders or call == "other":
            return None
        with self._lock:
            for order in self._orders:
                if order.call not in ("any", call) or self._dice.random() >= order.probability:
                    continue
                if order.left is not None:
                    order.left -= 1
                    if not order.left:
                        self._orders.remove(order)
                return order
        return None

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._orders.clear()


def describe(faults: Iterable[str] = FAULTS) -> str:
    """Return the catalogue as text, one fault per line with its options."""
    lines = []
    for name in faults:
        fault = FAULTS[name]
        options = ", ".join(f"{option}={value}" for option, value in fault.options.items())
        lines.append(f"  {name:<23} {fault.sentence}" + (f" [{options}]" if options else ""))
    return "\n".join(lines)


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
