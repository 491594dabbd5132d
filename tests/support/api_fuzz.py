"""Asks an API everything that its own description allows, and much that it does not.

    python -m tests.support.api_fuzz http://127.0.0.1:8082 --token TOKEN --examples 300

against a router that has nothing to lose: it is told to load, unload, change and revoke.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks, openapi
from schemathesis.generation import GenerationMode

# Whether a name or an etag is known is beyond a description: a 404 or 412 is as good as a 200.
_TOO_LONG = (413, 414, 431)
_LEFT_OUT = ("positive_data_acceptance", "use_after_free", "ensure_resource_availability")
Improve = Callable[[Any, int], None]
"""Puts what is known to be there into a case; told which of its operation's it is."""


class Outcome:
    """What came of it: answers by operation and status, and what was wrong with them."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.faults: list[str] = []

    @property
    def statuses(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for (_, status), count in self.answers.items():
            found[status] += count
        return found


def chosen_checks() -> list[Callable[..., Any]]:
    """Give every check that a description can be held to."""
    checks.load_all_checks()
    known = checks.CHECKS.get_all_names()
    return [checks.CHECKS.get_one(name) for name in known if name not in _LEFT_OUT]


def fuzz(
    schema: Any,  # noqa: ANN401 - schemathesis' own
    *,
    examples: int,
    number: int,
    headers: Mapping[str, str] | None = None,
    skip: Iterable[tuple[str, str]] = (),
    improve: Improve = lambda _case, _number: None,
    **transport: Any,  # noqa: ANN401 - what its calls take
) -> Outcome:
    """Try ``examples`` of each operation and kind of data; ``number`` is the seed.

    ``improve`` gets at the cases that the description allows.
    """
    outcome, held_to, skipped = Outcome(), chosen_checks(), set(skip)
    for found in schema.get_all_operations():
        operation = found.ok()
        if (operation.method.upper(), operation.path) in skipped:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            better = improve if mode is GenerationMode.POSITIVE else None
            trial = _Trial(operation, outcome, held_to, dict(headers or {}), transport, better)
            trial.run(mode, examples, number)
    return outcome


class _Trial:
    """All cases of one operation."""

    def __init__(
        self,
        operation: Any,  # noqa: ANN401 - schemathesis' own
        outcome: Outcome,
        held_to: list[Callable[..., Any]],
        headers: dict[str, str],
        transport: dict[str, Any],
        improve: Improve | None,
    ) -> None:
        self._operation = operation
        self._outcome = outcome
        self._held_to = held_to
        self._headers = headers
        self._transport = transport
        self._improve = improve
        self._count = 0

    def run(self, mode: GenerationMode, examples: int, number: int) -> None:
        """Ask, and note what is wrong; of one fault hypothesis tells the smallest case."""
        cases = self._operation.as_strategy(generation_mode=mode)
        limits = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        place = f"{self._operation.label} ({mode.value})"
        try:
            seed(number)(limits(given(case=cases)(self._ask)))()
        except Unsatisfiable:
            # There is nothing that could be wrong about a request without arguments.
            return
        except BaseExceptionGroup as group:
            self._outcome.faults += [f"{place}: {one}" for one in group.exceptions]
        except Exception as error:  # noqa: BLE001 - of whatever kind: it is what is looked for
            self._outcome.faults.append(f"{place}: {type(error).__name__}: {error}")

    def _ask(self, case: Any) -> None:  # noqa: ANN401 - schemathesis' own
        self._count += 1
        if self._improve is not None:
            self._improve(case, self._count)
        if isinstance(case.query, dict) and "follow" in case.query:
            # It would go on until its client leaves.
            case.query["follow"] = "false"
        answer = case.call(headers=self._headers, **self._transport)
        label = self._operation.label
        self._outcome.answers[label, answer.status_code] += 1
        held_to = self._held_to
        if answer.status_code in _TOO_LONG:
            # A refusal as well, though the check does not count it among them.
            held_to = [one for one in held_to if one.__name__ != "negative_data_rejection"]
        case.validate_response(answer, checks=held_to, headers=self._headers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--token", default="")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    headers = {"authorization": f"Bearer {asked.token}"} if asked.token else {}
    schema = openapi.from_url(f"{asked.url}/openapi.json", headers=headers)
    outcome = fuzz(
        schema,
        examples=asked.examples,
        number=asked.seed,
        headers=headers,
        skip=[("GET", "/admin/events")],
        base_url=asked.url,
    )
    for (label, status), count in sorted(outcome.answers.items()):
        print(f"{label:45} {status} {count:6}")  # noqa: T201 - a command
    for fault in outcome.faults:
        print(fault, file=sys.stderr)  # noqa: T201 - a command
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
