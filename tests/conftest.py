"""How hard Hypothesis works: `default` for every day, `ci` the same examples each time, `thorough` for a long run.

`pytest --hypothesis-profile=thorough` picks one by hand.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("ci" if os.environ.get("CI") else "default")
