"""Errors that a request can end with, by whose fault they are.

Each class is one kind: one HTTP status, one ``code``. The text says what happened and what to do.
The dialect of the request decides how it is written down.
"""

from typing import ClassVar

# Behind what an engine has done.
LOG_HINT = "; its log, GET /logs/MODEL, says more"


class RequestError(Exception):
    """A request ends with an error answer. Never raised itself: only its kinds are."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    error_type: ClassVar[str] = "server_error"
    # Whether the connection's further bytes can still be told apart into requests.
    closes: ClassVar[bool] = False
    # Whether the official SDKs are told to try again by themselves; None: they go by the status,
    # and do so on 408, 409, 429 and 5xx, twice.
    default_should_retry: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = self.default_should_retry if should_retry is None else should_retry


class ClientError(RequestError):
    """The client's fault: sending it again will not help."""

    status = 400
    code = "invalid_request"
    error_type = "invalid_request_error"


class BadRequestError(ClientError):
    """The request's content makes no sense."""


class MalformedRequestError(ClientError):
    """The bytes are no HTTP request that can be trusted; the connection ends with this."""

    code = "malformed_request"
    closes = True


class HttpVersionError(MalformedRequestError):
    """A version of HTTP other than 1.0 and 1.1."""

    status = 505
    code = "http_version_not_supported"


class NotImplementedMethodError(MalformedRequestError):
    """A method or transfer coding that a reverse proxy has no use for."""

    status = 501
    code = "not_implemented"


class TargetTooLongError(MalformedRequestError):
    """The request target is longer than any model's name or path."""

    status = 414
    code = "uri_too_long"


class HeadTooLargeError(MalformedRequestError):
    """Too many header fields, or too long ones."""

    status = 431
    code = "request_header_fields_too_large"


class RequestTimeoutError(MalformedRequestError):
    """The head or the body did not come in time."""

    status = 408
    code = "request_timeout"


class BodyTooLargeError(MalformedRequestError):
    """The body is larger than the router takes."""

    status = 413
    code = "request_too_large"


class ContentEncodingError(MalformedRequestError):
    """A compressed request body."""

    status = 415
    code = "unsupported_content_encoding"


class ExpectationError(MalformedRequestError):
    """An Expect header other than 100-continue."""

    status = 417
    code = "expectation_failed"


class AuthenticationError(ClientError):
    """No key, or a wrong one."""

    status = 401
    code = "invalid_api_key"
    error_type = "authentication_error"


class ForbiddenError(ClientError):
    """A host or an origin that is not allowed to ask."""

    status = 403
    code = "forbidden"
    error_type = "permission_error"


class ModelNotFoundError(ClientError):
    """No model of that name."""

    status = 404
    code = "model_not_found"


class EndpointNotAllowedError(ClientError):
    """The model's config does not open this path."""

    status = 404
    code = "endpoint_not_allowed"


class RateLimitError(ClientError):
    """The key has used up what it may ask for; its share comes back."""

    status = 429
    code = "rate_limit_exceeded"
    error_type = "rate_limit_error"
    default_should_retry = True


class IgnoredPathError(ClientError):
    """A path below /upstream that never loads its model, and the model is not loaded.

    What a page asks for by itself, such as its icon, is not worth a load: tried again, it would
    still not be.
    """

    status = 409
    code = "model_not_loaded"
    default_should_retry = False


class UnavailableError(RequestError):
    """The request could be served, but not now.

    A client's own loop would meet the same state, so most kinds tell it not to try.
    """

    status = 503
    code = "unavailable"
    default_should_retry = False


class NoModelsRunningError(UnavailableError):
    """Nothing is loaded that the question could be about."""

    code = "no_models_running"

    def __init__(self) -> None:
        super().__init__(
            "no models running; name one of GET /v1/models, or load it by POST /admin/load"
        )


class ModelNotLoadedError(UnavailableError):
    """The model is known but not loaded, and this request may not load it."""

    code = "model_not_loaded"


class ModelLoadFailedError(UnavailableError):
    """The engine ended before it was ready."""

    code = "model_load_failed"


class ModelBackingOffError(UnavailableError):
    """The engine has crashed and is not started again yet."""

    code = "model_backing_off"


class ModelFailedError(UnavailableError):
    """The engine has crashed so often that it is not started on demand any more."""

    code = "model_failed"


class ModelUnloadedError(UnavailableError):
    """An operator has stopped the model while the request waited."""

    code = "model_unloaded"


class ModelStuckError(UnavailableError):
    """The engine's process does not go away though it was killed."""

    code = "model_stuck"


class QueueTimeoutError(UnavailableError):
    """The request has waited for as long as it may.

    Tried again by itself it would wait as long once more, behind those who came later.
    """

    code = "queue_timeout"


class DoesNotFitError(UnavailableError):
    """The memory cannot hold the model, alone or beside what has to stay."""

    code = "does_not_fit"


class ShuttingDownError(UnavailableError):
    """The router is ending; its successor may be up in a moment."""

    code = "shutting_down"
    default_should_retry = True


class TooManyBodiesError(UnavailableError):
    """The bodies of the waiting requests fill the memory or the disk set aside for them."""

    code = "too_many_waiting_bodies"
    closes = True
    default_should_retry = True


class QueueFullError(UnavailableError):
    """As many requests wait for the model as may; a queue moves."""

    status = 429
    code = "queue_full"
    error_type = "rate_limit_error"
    default_should_retry = True


class EngineError(RequestError):
    """The engine's fault: it would most likely do the same again. Never raised itself."""

    default_should_retry = False


class LoadTimeoutError(EngineError):
    """The engine did not get ready in time."""

    status = 504
    code = "load_timeout"


class EngineTimeoutError(EngineError):
    """The engine was silent for too long."""

    status = 504
    code = "engine_timeout"


class EngineCrashedError(EngineError):
    """The engine went away before or while it answered."""

    status = 502
    code = "engine_crashed"


class BadUpstreamError(EngineError):
    """The engine's answer is no HTTP that can be passed on."""

    status = 502
    code = "bad_upstream"


class PeerUnavailableError(EngineError):
    """A remote server, in the place of an engine, cannot be reached or went away."""

    status = 502
    code = "peer_unavailable"


class PeerLoopError(EngineError):
    """The request has come back through a peer that has this router for a peer."""

    status = 508
    code = "peer_loop"
    closes = True


class InternalError(RequestError):
    """A fault of the router itself."""
