from llama_router.control.secret import SECRET_HEADER
from llama_router.proxy.forward import request_fields
from llama_router.proxy.head import RequestHead


def test_no_client_can_send_the_header_through_the_data_plane() -> None:
    head = RequestHead()
    head.headers = [(b"accept", b"*/*"), (SECRET_HEADER, b"guessed")]
    assert request_fields(head, drop_keys=False) == b"accept: */*\r\n"
