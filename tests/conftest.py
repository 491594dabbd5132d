"""For all tests."""

import os

from hypothesis import HealthCheck, settings

# Of the person who runs the tests: the command line would send it with every question.
os.environ.pop("LLAMA_ROUTER_TOKEN", None)

# How long an example takes is a matter of the machine, which others may be using.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("patient")
