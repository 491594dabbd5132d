import pytest

from llama_router.engines.pushed import Loading, Other, Ready, Report, parse

PREFIX = b"cmd_child_to_router:state:"


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (b"an ordinary line", None),
        (b"cmd_child_to_router", None),
        (b"cmd_child_to_router:ready", Ready()),
        (PREFIX + b'{"state":"ready","payload":{"n_ctx":512}}', Ready()),
        (PREFIX + b'{"state":"ready"}', Ready()),
        (PREFIX + b'{"state":"sleeping","payload":{}}', Other()),
        (PREFIX + b'{"state":"loading","payload":{}}', Loading(None)),
        (PREFIX + b'{"state":"loading","payload":{"value":0.5}}', Loading(0.5)),
        (
            PREFIX
            + b'{"state":"loading","payload":{"stages":["a","b"],"current":"b","value":0.5}}',
            Loading(0.75),
        ),
        (PREFIX + b'{"state":"loading","payload":{"value":1.5}}', Loading(None)),
        (PREFIX + b'{"state":"loading","payload":{"value":"x"}}', Loading(None)),
        (PREFIX + b'{"state":"loading","payload":[]}', Loading(None)),
        (PREFIX + b'{"state":1}', Other()),
        (PREFIX + b'{"state":"ready"', Other()),
        (PREFIX + b"", Other()),
        (PREFIX + b"[" * 100_000, Other()),
        (PREFIX + b'{"state":"\xff"}', Other()),
    ],
)
def test_lines_mean_what_llama_server_means(line: bytes, report: Report | None) -> None:
    assert parse(line) == report
