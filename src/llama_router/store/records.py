"""What the store keeps. Never answers or keys, and prompts only if the config says so."""

import msgspec

# What a name may cost at most, as names come from configs and requests.
NAME_MAX_CHARS = 1024
# What a prompt may; the newest of a conversation, which is at its end, says most.
PROMPT_MAX_CHARS = 16 * 1024


class FootprintKey(msgspec.Struct, frozen=True):
    """What a measurement holds for: another argument or engine build, another footprint.

    ``arguments_hash`` is any digest of the command with everything that matters to memory;
    ``engine_build`` is what tells one build of the engine from the next, "" when unknown.
    """

    model: str
    arguments_hash: str
    engine_build: str = ""


class Footprint(msgspec.Struct, frozen=True):
    """What was measured of one engine: bytes by device ("ram", "CUDA0" ...), seconds to load.

    ``measured_at_s`` is Unix time.
    """

    memory_bytes: dict[str, int]
    load_time_s: float
    measured_at_s: float


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request that has ended.

    ``time_s`` is its arrival in Unix time, ``key`` the name of its API key (never the key),
    ``end`` its end code ("-.-" for a good one). The durations run from its arrival; None for a
    stage that it did not reach, as for tokens that nobody counted. ``path`` is what was asked of
    the engine, ``status`` the answer's, 0 without one. ``prompt`` is the request's JSON, shortened,
    and empty unless ``router.history_prompts`` is on.
    """

    time_s: float
    model: str
    total_s: float
    end: str
    key: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    queue_s: float | None = None
    first_byte_s: float | None = None
    path: str = ""
    status: int = 0
    prompt: str = ""
