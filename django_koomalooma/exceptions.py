"""One family of errors, each named by what its catcher does next.

What the app cannot do is said here; what happened on the wire is decided by the table in `client.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from .client import Answer


class KoomaloomaError(Exception):
    """Catch this to catch every error of this app."""


class ConfigurationError(KoomaloomaError, ImproperlyConfigured):
    """Mend a setting: the message names it and says what to do."""


class InvalidEvent(KoomaloomaError, ValueError):
    """Mend the shop's event: the message names the field that cannot be read."""


class NotAllowed(KoomaloomaError):
    """Leave the row alone: its status does not allow this decision."""


class CallFailed(KoomaloomaError):
    """Look at `answer`: a call to koomalooma did not end with the answer that was hoped for.

    Args:
        answer: all that is known of the call; it never holds the token.
    """

    sentence = "The call failed"

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer

    def __str__(self) -> str:
        seen = f"HTTP {self.answer.http_status}" if self.answer.http_status else self.answer.error
        return f"{self.sentence} ({self.answer.method} {self.answer.path}: {seen[:200] or 'no answer'})."


class NotSent(CallFailed):
    """Send it again: no byte of the request left this machine."""

    sentence = "Nothing was sent"


class Misconfigured(NotSent):
    """Stop, and have a person mend a setting: no byte left, and none will as things are."""

    sentence = "Nothing was sent, and nothing will be until the settings are mended"


class SendLater(CallFailed):
    """Wait `answer.retry_after` seconds, then send it again: koomalooma did nothing yet (429)."""

    sentence = "koomalooma asks to send this later"


class AccountTrouble(CallFailed):
    """Stop and alert: the account or the token is the trouble, not this call (401, 402, 403)."""

    sentence = "koomalooma does not accept the account or the token"


class Refused(CallFailed):
    """Do not send it again as it is: koomalooma said no to this one."""

    sentence = "koomalooma refused"


class MayHaveArrived(CallFailed):
    """Never send it again by yourself: it may have been booked, a person decides."""

    sentence = "The call may have arrived"
