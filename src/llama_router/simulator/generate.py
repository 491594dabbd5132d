"""Made-up traces. The same arguments give the same trace, on every platform."""

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate

from llama_router.simulator.trace import TraceRequest


def names(count: int) -> list[str]:
    """Return the names of ``count`` made-up models."""
    width = len(str(count - 1))
    return [f"m{number:0{width}}" for number in range(count)]


def alternating(
    models: Sequence[str], count: int, interval_s: float, *, tokens_out: int = 10
) -> Iterator[TraceRequest]:
    """Yield ``count`` requests, one each ``interval_s``, for one model after the other."""
    for number in range(count):
        yield TraceRequest(number * interval_s, models[number % len(models)], "", 0, tokens_out)


def zipf(
    models: Sequence[str],
    count: int,
    rate_per_s: float,
    seed: int,
    *,
    exponent: float = 1.1,
    mean_tokens_in: float = 256.0,
    mean_tokens_out: float = 64.0,
) -> Iterator[TraceRequest]:
    """Yield requests with Poisson arrivals; the n-th model's share falls with n to ``exponent``.

    Which model is the n-th is drawn, so popularity has nothing to do with the order of names.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    shares = _zipf_shares(models, rng, exponent)
    weights = list(accumulate(shares.values()))
    now = 0.0
    for model in rng.choices(list(shares), cum_weights=weights, k=count):
        now += rng.expovariate(rate_per_s)
        tokens_in = 1 + int(rng.expovariate(1.0 / mean_tokens_in))
        tokens_out = 1 + int(rng.expovariate(1.0 / mean_tokens_out))
        yield TraceRequest(now, model, "", tokens_in, tokens_out)


def zipf_shares(models: Sequence[str], seed: int, *, exponent: float = 1.1) -> dict[str, float]:
    """Return how likely each request of :func:`zipf` is for each model."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    return _zipf_shares(models, rng, exponent)


def _zipf_shares(models: Sequence[str], rng: random.Random, exponent: float) -> dict[str, float]:
    ranked = list(models)
    rng.shuffle(ranked)
    weights = [1.0 / (rank + 1) ** exponent for rank in range(len(ranked))]
    total = sum(weights)
    return {model: weight / total for model, weight in zip(ranked, weights, strict=True)}


def bursty(
    models: Sequence[str],
    count: int,
    rate_per_s: float,
    seed: int,
    *,
    mean_burst_count: float = 20.0,
    burst_speed: float = 10.0,
    batch_share: float = 0.3,
) -> Iterator[TraceRequest]:
    """Yield bursts: one key asks one model many times, ``burst_speed`` times the mean rate.

    A share of the bursts is batch work. Pauses between bursts keep the mean rate.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    sent = 0
    now = 0.0
    while sent < count:
        model = rng.choice(models)
        key = f"key{rng.randrange(8)}"
        is_batch = rng.random() < batch_share
        burst_count = min(count - sent, 1 + int(rng.expovariate(1.0 / mean_burst_count)))
        start = now
        for _ in range(burst_count):
            now += rng.expovariate(rate_per_s * burst_speed)
            tokens_in = 1 + int(rng.expovariate(1 / 256))
            tokens_out = 1 + int(rng.expovariate(1 / 64))
            yield TraceRequest(now, model, key, tokens_in, tokens_out, is_batch)
        sent += burst_count
        now = max(now, start + burst_count / rate_per_s)
