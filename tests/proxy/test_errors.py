import pytest

from llama_router.proxy import answer, errors
from llama_router.proxy.errors import ClientError, NoModelsRunningError, RequestError


def kinds(base: type[RequestError]) -> list[type[RequestError]]:
    return [one for sub in base.__subclasses__() for one in (sub, *kinds(sub))]


KINDS = [kind for kind in kinds(RequestError) if kind.__module__ == errors.__name__]


def made(kind: type[RequestError]) -> RequestError:
    return kind() if kind is NoModelsRunningError else kind("text")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_can_be_answered(kind: type[RequestError]) -> None:
    written = answer.error_response(made(kind), close=kind.closes)
    assert written.startswith(b"HTTP/1.1 %d " % kind.status)
    assert kind.code.encode() in written


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_status_says_whose_fault_it_is(kind: type[RequestError]) -> None:
    if not issubclass(kind, ClientError):
        # A full queue is nobody's fault, but 429 is the status that clients slow down for.
        assert 500 <= kind.status < 600 or kind is errors.QueueFullError
    elif kind.status not in (501, 505):
        # Those two are how HTTP says that a client asks for too much.
        assert 400 <= kind.status < 500


def test_codes_tell_kinds_apart() -> None:
    generic = {errors.ClientError, errors.BadRequestError, errors.InternalError}
    # The same as ModelNotLoadedError, but not worth a status that is tried again.
    generic.add(errors.IgnoredPathError)
    codes = [kind.code for kind in KINDS if kind not in generic]
    assert len(codes) == len(set(codes))
