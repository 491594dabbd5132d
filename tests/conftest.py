"""For all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes is a matter of the machine, which others may be using.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("patient")
