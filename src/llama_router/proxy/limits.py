"""Limits of the data plane. Each is a bound on what one peer can cost; units stand last."""

# Heads. nginx allows 4 x 8 KiB, Apache 100 fields of 8 KiB, node 16 KiB in all; clients of language
# models send cookies and traces, so the whole is generous and the target is not.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADER_COUNT = 128
MAX_TARGET_BYTES = 8 * 1024
# A head must be whole this long after its first byte, however it dribbles.
HEAD_DEADLINE_S = 10.0
# nginx's keepalive_timeout.
IDLE_TIMEOUT_S = 75.0

# Bodies. A chat with several images is tens of megabytes; audio files are larger.
MAX_JSON_BODY_BYTES = 64 * 1024 * 1024
MAX_MULTIPART_BODY_BYTES = 1024 * 1024 * 1024
# Orders to the router name a model and a few settings; its API shares the interpreter with streams.
MAX_CONTROL_BODY_BYTES = 64 * 1024
# A whole config to be checked: the longest file that is read (4 MiB), as a string of JSON.
MAX_CONFIG_BODY_BYTES = 8 * 1024 * 1024
# Beyond this a body waits on disk, not in memory.
SPOOL_THRESHOLD_BYTES = 1024 * 1024
# Read from or written to the disk at a time.
SPOOL_PIECE_BYTES = 256 * 1024
# All bodies held on disk together: a temporary folder is often no larger than the memory.
MAX_BODIES_ON_DISK_BYTES = 16 * 1024 * 1024 * 1024
# So much of a chunked body is taken at a time: with a chunk to every byte it takes a millisecond.
CHUNKED_SLICE_BYTES = 8 * 1024
# All bodies held in memory together, whatever number of requests wait.
MAX_BODIES_IN_MEMORY_BYTES = 256 * 1024 * 1024
# A body must come at this rate on average, once the grace is over.
MIN_BODY_RATE_BYTES_PER_S = 1024
BODY_GRACE_S = 30.0

# What a client may send ahead while its request is in flight. Beyond it, reading stops; as a paused
# transport does not report a disconnect, it may stay so only for the deadline.
MAX_EARLY_BYTES = 64 * 1024
MAX_EARLY_PAUSE_S = 10.0

# Relay. At the high mark the engine's side is paused; one read is at most READ_BUFFER_BYTES, so a
# slow client costs their sum.
WRITE_HIGH_WATER_BYTES = 64 * 1024
WRITE_LOW_WATER_BYTES = 16 * 1024
READ_BUFFER_BYTES = 64 * 1024
# A chunk-size line or a trailer section longer than this is no honest peer's.
MAX_CHUNK_LINE_BYTES = 256
MAX_TRAILER_BYTES = 8 * 1024
# Of each request's body, when prompts are kept in the history.
MAX_PROMPT_BYTES = 64 * 1024
# An engine's error answer that has to be turned into an event is read up to this.
MAX_ERROR_BODY_BYTES = 64 * 1024
# The end of an answer is looked through for its counts of tokens.
TAIL_MAX_BYTES = 8 * 1024
# Interim (1xx) answers before the final one.
MAX_INTERIM_RESPONSES = 8

# llama-server closes idle connections after 5 s; a connection is reused only well before that.
POOL_IDLE_S = 4.0
POOL_MAX_IDLE_COUNT = 256
# Servers on the net keep idle connections for a minute or more; a new one costs round trips.
REMOTE_POOL_IDLE_S = 30.0

# Between two comments on a stream that waits for its engine: under the 30 s to 60 s after which
# proxies and clients give up on a silent connection.
HEARTBEAT_S = 15.0
# Steps of the clock by which all of the above are watched.
SWEEP_S = 1.0
SWEEP_SLICE_COUNT = 500
