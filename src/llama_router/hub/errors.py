"""What can go wrong between here and the hub."""

from typing import Literal

Code = Literal[
    "bad_answer",
    "bad_request",
    "busy",
    "disk_failed",
    "disk_full",
    "forbidden_address",
    "gated",
    "internal_error",
    "not_found",
    "offline",
    "rate_limited",
    "unauthorized",
    "unreachable",
    "wrong_hash",
]


class HubError(Exception):
    """What was asked for cannot be had; ``code`` says of which kind the reason is."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message


class PassingError(Exception):
    """It did not work this time. ``retry_after_s``: when the hub wants to be asked again.

    ``code``: what it is called if it never works.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, code: Code = "unreachable"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.code: Code = code
