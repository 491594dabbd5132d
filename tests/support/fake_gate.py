"""The runtime as the data plane sees it, in the hands of a test.

It checks what every Gate relies on: each request that was submitted ends by exactly one of
``cancel``, ``finished`` and a rejection, and nothing is said about it afterwards.
"""

import asyncio
from dataclasses import dataclass, field

from llama_router.proxy.errors import (
    BadRequestError,
    EndpointNotAllowedError,
    ModelNotFoundError,
    RequestError,
)
from llama_router.proxy.gate import ANYBODY, Caller, Ended, NoticeKind, Target, Waiter
from llama_router.proxy.upstream import Upstream


@dataclass
class Submission:
    """One request as the data plane has handed it over."""

    request_id: int
    waiter: Waiter
    model: str
    may_load: bool
    wants_notices: bool
    caller: Caller = ANYBODY
    keep_alive_s: float | None = None
    takes_slot: bool = True
    dispatch_count: int = 0
    bounce_count: int = 0
    silent_count: int = 0
    # "cancelled", "finished", "rejected"; more than one is a fault.
    outcomes: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def outcome(self) -> str:
        return ",".join(self.outcomes)


class FakeGate:
    """Implements Gate. Requests are dispatched at once unless ``holds`` is set."""

    MAX_DISPATCH_COUNT = 2

    def __init__(self, engine: Upstream, control: Upstream) -> None:
        self.control = control
        self.engine = engine
        self.holds = False
        self.models = {"tiny": "tiny", "user/repo:Q4": "user/repo:Q4"}
        # In the place of those that are made of ``models``.
        self.targets: dict[str, Target] = {}
        self.ambiguous: set[str] = set()
        self.root: str | None = None
        self.closed_paths: set[str] = set()
        self.has_history = True
        self.history: list[Ended] = []
        self.submissions: list[Submission] = []
        self._arrived: asyncio.Queue[Submission] = asyncio.Queue()

    # --- Gate

    def resolve(self, name: str) -> Target:
        if name in self.ambiguous:
            raise BadRequestError(f"'{name}' could be several models", param="model")
        if name in self.targets:
            return self.targets[name]
        if name not in self.models:
            raise ModelNotFoundError(f"no model is called '{name}'", param="model")
        return Target(self.models[name])

    def resolve_prefix(self, text: str) -> Target | None:
        for name in sorted(self.models, key=len, reverse=True):
            if text == name or text.startswith(name + "/"):
                return Target(self.models[name], text[len(name) :])
        return None

    def root_target(self) -> str | None:
        return self.root

    def check_endpoint(self, model: str, path: str) -> None:
        if path in self.closed_paths:
            raise EndpointNotAllowedError(f"{path} is closed for {model}")

    def submit(
        self,
        waiter: Waiter,
        model: str,
        *,
        may_load: bool,
        wants_notices: bool,
        caller: Caller = ANYBODY,
        keep_alive_s: float | None = None,
        takes_slot: bool = True,
    ) -> int | None:
        submission = Submission(
            len(self.submissions) + 1,
            waiter,
            model,
            may_load,
            wants_notices,
            caller,
            keep_alive_s,
            takes_slot,
        )
        self.submissions.append(submission)
        self._arrived.put_nowait(submission)
        if not self.holds:
            self.dispatch(submission)
        return None if submission.outcomes else submission.request_id

    def cancel(self, request_id: int) -> None:
        self._end(request_id, "cancelled")

    def finished(self, request_id: int) -> None:
        assert self.submissions[request_id - 1].dispatch_count, "finished, but never dispatched"
        self._end(request_id, "finished")

    def bounced(self, request_id: int) -> None:
        submission = self.submissions[request_id - 1]
        assert not submission.outcomes, f"bounced after {submission.outcome}"
        assert submission.dispatch_count, "bounced, but never dispatched"
        submission.bounce_count += 1
        if submission.dispatch_count < self.MAX_DISPATCH_COUNT:
            self.dispatch(submission)
        else:
            self.reject(submission, BouncedTwiceError("the engine does not answer"))

    def silent(self, request_id: int) -> None:
        submission = self.submissions[request_id - 1]
        assert not submission.outcomes, f"silent after {submission.outcome}"
        assert submission.dispatch_count, "silent, but never dispatched"
        submission.silent_count += 1

    def wants_record(self) -> bool:
        return self.has_history

    def remember(self, ended: Ended) -> None:
        assert self.has_history
        self.history.append(ended)

    # --- what a test does with it

    async def arrived(self) -> Submission:
        """Wait for the next request."""
        return await self._arrived.get()

    def dispatch(self, submission: Submission) -> None:
        assert not submission.outcomes
        submission.dispatch_count += 1
        submission.waiter.dispatch(self.engine)

    def reject(self, submission: Submission, error: RequestError) -> None:
        # As the runtime does it: the request is forgotten before its waiter hears of it.
        self._end(submission.request_id, "rejected")
        submission.waiter.reject(error)

    def notify(
        self,
        submission: Submission,
        kind: NoticeKind,
        fraction: float | None = None,
        position: int | None = None,
    ) -> None:
        submission.waiter.notify(kind, submission.model, fraction, position)

    def check(self) -> None:
        """Every request has ended, once."""
        for submission in self.submissions:
            assert len(submission.outcomes) == 1, submission

    def _end(self, request_id: int, outcome: str) -> None:
        submission = self.submissions[request_id - 1]
        assert not submission.outcomes, f"{outcome} after {submission.outcome}"
        submission.outcomes.append(outcome)
        submission.ended.set()


class BouncedTwiceError(RequestError):
    """What the core would say of an engine that bounced twice."""

    status = 502
    code = "engine_crashed"
