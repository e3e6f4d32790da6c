"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples each time where a run decides about others' work; new ones on a desk.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
