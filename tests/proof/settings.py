"""The settings of a process that may be killed: the suite's, and what ``PROOF_SETTINGS`` says."""

import json
import os

from tests.settings import *  # noqa: F403 - settings are made to be taken over whole

globals().update(json.loads(os.environ.get("PROOF_SETTINGS", "{}")))
