"""The admin: what staff see of campaigns, customers and commitments. Decisions are made in ``review``."""

from .campaigns import CampaignAdmin
from .commitments import CommitmentAdmin
from .customers import KoomaloomaUserAdmin

__all__ = ["CampaignAdmin", "CommitmentAdmin", "KoomaloomaUserAdmin"]
