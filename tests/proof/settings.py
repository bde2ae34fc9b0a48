"""The settings of a process that may be killed: the suite's, and what the test puts into ``PROOF_SETTINGS``."""

import json
import os

from tests.settings import *

globals().update(json.loads(os.environ.get("PROOF_SETTINGS", "{}")))
