"""The tables: campaigns, customers, commitments, attempts, and the gate. One-row rules only."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import uuid
from decimal import Decimal

from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import DataError, OperationalError, ProgrammingError, models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .querysets import CampaignQuerySet, CommitmentQuerySet
from .statuses import CommitmentStatus

_LONGEST_REFERENCE = 255

# Out of range, a letter that the column's charset lacks, too long. MySQL's driver takes them for anything.
_MYSQL_DATA_ERRORS = (1264, 1366, 1406)


def storable(text: str) -> str:
    """Return ``text`` with what no database keeps (NUL, lone surrogates) replaced."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def is_data_error(error: BaseException) -> bool:
    """Return whether the database refused what a value holds: another value may be kept."""
    if isinstance(error, OperationalError | ProgrammingError):
        return bool(error.args) and error.args[0] in _MYSQL_DATA_ERRORS
    return isinstance(error, DataError)


def shorten_reference(reference: str) -> str:
    """Return the reference as the column keeps it.

    Whole, or cut with a mark of its own when it is too long.
    """
    text = storable(reference)
    if len(text) <= _LONGEST_REFERENCE:
        return text
    mark = hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{text[: _LONGEST_REFERENCE - 14]}… {mark}"


def make_key(site: str, goal: str, reference: str) -> str:
    """Return what makes an event unique: a hash, so that no collation can take two references for one."""
    name = json.dumps([site, goal, reference])
    return hashlib.sha256(name.encode("ascii")).hexdigest()


def make_trace_key() -> str:
    """Return 12 random base32 characters that find a commitment at koomalooma's support."""
    return base64.b32encode(secrets.token_bytes(8)).decode("ascii")[:12]


def make_partner_user_id() -> str:
    """Return a random customer id; it says nothing about the customer (R8)."""
    return uuid.uuid4().hex


class Campaign(models.Model):
    """An earning rule at koomalooma, typed in by staff."""

    name = models.CharField(_("name"), max_length=100, help_text=_("For your own eyes."))
    remote_id = models.CharField(
        _("campaign id"),
        max_length=100,
        unique=True,
        help_text=_("The id of the campaign in koomalooma's panel."),
    )
    goal = models.CharField(
        _("rewarded for"),
        max_length=50,
        default="purchase",
        validators=[RegexValidator(r"^[a-z0-9][a-z0-9_-]*\Z", _("Use lower-case letters, digits, - and _."))],
        help_text=_("purchase, signup, referral, review, or a word of your own shop's."),
    )
    category = models.CharField(
        _("category"),
        max_length=100,
        blank=True,
        help_text=_("Sent with each commitment. Empty: what it is rewarded for."),
    )
    description_template = models.CharField(
        _("description"),
        max_length=150,
        blank=True,
        help_text=_(
            "What the customer reads at koomalooma. {reference} and {goal} are replaced. "
            "Empty: “Order {reference}”."
        ),
    )
    currency = models.CharField(
        _("currency"),
        max_length=3,
        default="EUR",
        validators=[RegexValidator(r"^[A-Z]{3}\Z", _("Use three upper-case letters, as EUR."))],
        help_text=_("Orders in another currency get no points from this campaign."),
    )
    site = models.CharField(
        _("site"),
        max_length=253,
        blank=True,
        help_text=_("A domain, where one project serves several shops."),
    )
    is_active = models.BooleanField(_("active"), default=True)
    starts_at = models.DateTimeField(
        _("starts at"), default=timezone.now, help_text=_("What was paid earlier gets no points.")
    )
    ends_at = models.DateTimeField(_("ends at"), null=True, blank=True)
    hold_days = models.PositiveSmallIntegerField(
        _("hold for days"),
        default=0,
        help_text=_("Points cannot be taken back: wait until the order can no longer be returned."),
    )
    minimum_value = models.DecimalField(
        _("minimum value"),
        max_digits=15,
        decimal_places=3,
        default=Decimal(0),
        validators=[MinValueValidator(Decimal(0))],
        help_text=_("Orders below it get no points."),
    )
    fixed_value = models.DecimalField(
        _("fixed value"),
        max_digits=15,
        decimal_places=3,
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal(0))],
        help_text=_("Sent as the transaction's value where nothing is bought, for a sign-up for instance."),
    )

    objects = CampaignQuerySet.as_manager()

    class Meta:
        verbose_name = _("campaign")
        verbose_name_plural = _("campaigns")
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=Q(minimum_value__gte=0), name="koomalooma_campaign_minimum_value_positive"
            ),
            models.CheckConstraint(
                condition=Q(fixed_value__isnull=True) | Q(fixed_value__gte=0),
                name="koomalooma_campaign_fixed_value_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse a campaign that ends before it starts, or overlaps with one of the same goal.

        Currency and site.
        """
        if self.ends_at and self.starts_at and self.ends_at <= self.starts_at:
            raise ValidationError({"ends_at": _("It ends before it starts.")})
        if not self.is_active or not self.starts_at:
            return
        rivals = Campaign.objects.overlapping(self)
        if rival := rivals.first():
            raise ValidationError(
                _("“%(name)s” rewards the same at the same time. End it, or switch one of the two off.")
                % {"name": rival.name}
            )


class KoomaloomaUser(models.Model):
    """A customer as koomalooma knows him: by a random id, never by e-mail, name or primary key."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        verbose_name=_("customer"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="koomalooma_user",
    )
    partner_user_id = models.CharField(
        _("our id"), max_length=32, unique=True, default=make_partner_user_id, editable=False
    )
    remote_id = models.CharField(
        _("id at koomalooma"),
        max_length=255,
        blank=True,
        help_text=_(
            "Goes into the address of each call. Empty it to make the customer known to koomalooma again."
        ),
    )
    registered_session_id = models.CharField(max_length=255, blank=True, editable=False)
    registered_at = models.DateTimeField(_("registered at"), null=True, blank=True, editable=False)
    email_hash = models.CharField(max_length=64, null=True, blank=True, unique=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("customer")
        verbose_name_plural = _("customers")
        indexes = [models.Index(fields=["remote_id"], name="koomalooma_user_remote_id")]

    def __str__(self) -> str:
        return str(self.user) if self.user_id else f"{_('Guest')} {self.partner_user_id[:8]}"


class Commitment(models.Model):
    """Points owed and then issued: one event, one row, for its whole life."""

    Status = CommitmentStatus

    # A deferred foreign-key check would fail at the shop's own COMMIT and cost the order (a customer deleted
    # meanwhile, a campaign deleted in another process). So these keys are kept by Django alone.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("customer"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        related_name="koomalooma_commitments",
    )
    campaign = models.ForeignKey(
        Campaign,
        verbose_name=_("campaign"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        db_constraint=False,
        related_name="commitments",
    )
    koomalooma_user = models.ForeignKey(
        KoomaloomaUser, null=True, blank=True, on_delete=models.PROTECT, related_name="commitments"
    )
    source_type = models.ForeignKey(
        ContentType, null=True, blank=True, on_delete=models.SET_NULL, db_constraint=False, db_index=False
    )
    source_id = models.CharField(max_length=64, blank=True)
    source = GenericForeignKey("source_type", "source_id")

    key = models.CharField(max_length=64, editable=False)
    goal = models.CharField(_("rewarded for"), max_length=50)
    reference = models.CharField(_("reference"), max_length=_LONGEST_REFERENCE)
    site = models.CharField(_("site"), max_length=253, blank=True)
    email_hash = models.CharField(max_length=64, blank=True)
    session_id = models.CharField(max_length=255, blank=True)
    occurred_at = models.DateTimeField(_("happened at"))
    net_value = models.DecimalField(_("worth now"), max_digits=15, decimal_places=3)
    transaction_value = models.DecimalField(
        _("value sent"), max_digits=15, decimal_places=3, null=True, blank=True
    )
    currency = models.CharField(_("currency"), max_length=3)
    description = models.CharField(_("description"), max_length=255, blank=True)
    category = models.CharField(_("category"), max_length=100, blank=True)
    terms = models.JSONField(_("terms"), default=dict)
    trace_key = models.CharField(_("code"), max_length=12, default=make_trace_key)
    status = models.CharField(_("status"), max_length=12, choices=CommitmentStatus.choices)
    reason = models.TextField(_("reason"), blank=True)
    withdrawn_at = models.DateTimeField(_("withdrawn at"), null=True, blank=True)
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    lease = models.UUIDField(null=True, blank=True, editable=False)
    tries = models.PositiveIntegerField(_("tries"), default=0)
    created_at = models.DateTimeField(_("recorded at"))
    updated_at = models.DateTimeField(_("changed at"))

    remote_id = models.CharField(_("id at koomalooma"), max_length=255, blank=True)
    loyalty_units = models.BigIntegerField(_("points"), null=True, blank=True)
    confirmation_status = models.CharField(_("confirmation at koomalooma"), max_length=50, blank=True)
    issued_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    reply = models.JSONField(_("koomalooma's answer"), null=True, blank=True)

    objects = CommitmentQuerySet.as_manager()

    class Meta:
        verbose_name = _("commitment")
        verbose_name_plural = _("commitments")
        ordering = ("-id",)
        permissions = [
            ("manage_commitment", _("Can send now, hold, cancel and restore points")),
            ("settle_commitment", _("Can settle unclear points")),
        ]
        indexes = [
            # On due_at alone, ordered by it alone: measured flat to five million rows. What is finished has
            # no due_at, so this small index finds both what is due and what was abandoned.
            models.Index(fields=["due_at"], name="koomalooma_due", condition=Q(due_at__isnull=False)),
            models.Index(
                fields=["issued_at"], name="koomalooma_issued", condition=Q(issued_at__isnull=False)
            ),
            models.Index(fields=["status", "id"], name="koomalooma_status"),
            # Few among many that were sent. CommitmentQuerySet.over_issued asks by the same condition. The
            # status stands in front, since SQLite else takes the index above.
            models.Index(
                fields=["status", "id"],
                name="koomalooma_over_issued",
                condition=Q(status="issued", transaction_value__gt=F("net_value")),
            ),
            # For the staff's lists and searches: each looks at a page, whatever the table holds.
            models.Index(fields=["goal", "id"], name="koomalooma_goal"),
            models.Index(fields=["created_at"], name="koomalooma_created"),
            models.Index(fields=["reference"], name="koomalooma_reference"),
            models.Index(
                fields=["remote_id"], name="koomalooma_remote_id", condition=Q(issued_at__isnull=False)
            ),
        ]
        constraints = [
            # Here and not as unique=True, which on PostgreSQL adds an index for LIKE that nobody asks.
            models.UniqueConstraint(fields=["key"], name="koomalooma_key"),
            models.UniqueConstraint(fields=["trace_key"], name="koomalooma_trace_key"),
            models.CheckConstraint(
                condition=Q(status__in=CommitmentStatus.values), name="koomalooma_known_status"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "sending"], due_at__isnull=False)
                | (~Q(status__in=["queued", "sending"]) & Q(due_at__isnull=True)),
                name="koomalooma_due_while_open",
            ),
            models.CheckConstraint(
                condition=Q(campaign__isnull=False) | Q(status__in=["skipped", "cancelled"]),
                name="koomalooma_campaign_with_points",
            ),
            models.CheckConstraint(
                condition=Q(net_value__gte=0)
                & (Q(transaction_value__isnull=True) | Q(transaction_value__gte=0)),
                name="koomalooma_value_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reference} ({self.get_status_display()})"

    @property
    def is_fixed(self) -> bool:
        """Whether the value is the campaign's own, so that 0 is a value and not a withdrawal (R13)."""
        return bool(self.terms.get("fixed"))

    @property
    def over_issued(self) -> Decimal:
        """What was issued too much, in ``currency``: the order was refunded after its points were sent."""
        if self.status != CommitmentStatus.ISSUED or self.transaction_value is None:
            return Decimal(0)
        return max(self.transaction_value - self.net_value, Decimal(0))


class DeliveryAttempt(models.Model):
    """One call for a commitment: written before it, closed after it."""

    commitment = models.ForeignKey(Commitment, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField(_("number"))
    lease = models.UUIDField()
    started_at = models.DateTimeField(_("started at"))
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)
    outcome = models.CharField(_("outcome"), max_length=20, blank=True)
    http_status = models.PositiveSmallIntegerField(_("HTTP status"), null=True, blank=True)
    duration = models.FloatField(_("seconds"), null=True, blank=True)
    request = models.TextField(_("call"), blank=True)
    error = models.TextField(_("error"), blank=True)
    reply = models.TextField(_("answer"), blank=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ("commitment", "number")
        constraints = [
            models.UniqueConstraint(fields=["commitment", "number"], name="koomalooma_attempt_number")
        ]

    def __str__(self) -> str:
        return f"{self.number}: {self.outcome or _('under way')}"


class Decision(models.Model):
    """What a person decided about a commitment, or what came in late: written once, never changed."""

    commitment = models.ForeignKey(Commitment, on_delete=models.CASCADE, related_name="decisions")
    what = models.CharField(_("what"), max_length=20)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        related_name="+",
    )
    by = models.CharField(_("who"), max_length=150)
    at = models.DateTimeField(_("when"))
    why = models.TextField(_("why"), blank=True)
    before = models.CharField(_("before"), max_length=12, choices=CommitmentStatus.choices)
    after = models.CharField(_("after"), max_length=12, choices=CommitmentStatus.choices)
    details = models.JSONField(default=dict)

    class Meta:
        verbose_name = _("decision")
        verbose_name_plural = _("decisions")
        ordering = ("commitment", "id")
        indexes = [models.Index(fields=["what", "id"], name="koomalooma_decision_what")]

    def __str__(self) -> str:
        return f"{self.what}: {self.by}"


class Gate(models.Model):
    """One row: whether the queue may send, why not, and what is remembered about it."""

    is_stopped = models.BooleanField(_("stopped"), default=False)
    code = models.CharField(_("cause"), max_length=20, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    since = models.DateTimeField(_("since"), null=True, blank=True)
    next_probe_at = models.DateTimeField(_("tries again at"), null=True, blank=True)
    probes = models.PositiveIntegerField(default=0)
    is_careful = models.BooleanField(_("one at a time"), default=False)
    unsent_in_row = models.PositiveIntegerField(default=0)
    refused_in_row = models.PositiveIntegerField(default=0)
    in_doubt_in_row = models.PositiveIntegerField(default=0)
    swept_at = models.DateTimeField(_("last sweep"), null=True, blank=True)
    ran_at = models.DateTimeField(_("last run"), null=True, blank=True)
    warned = models.JSONField(default=dict)
    fingerprint = models.CharField(max_length=64, blank=True)
    guest_key = models.CharField(max_length=64, default=secrets.token_hex)
    runs = models.JSONField(default=dict)

    class Meta:
        verbose_name = _("sending")
        verbose_name_plural = _("sending")

    def __str__(self) -> str:
        return self.reason if self.is_stopped else str(_("Sending."))
