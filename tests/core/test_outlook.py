from llama_router.core.events import RequestArrived, RequestFinished
from llama_router.core.outlook import Outlook
from tests.core.test_swaps import ready, spec, stage_of


def test_who_goes_is_gone_already_and_who_has_a_claim_is_there() -> None:
    stage = stage_of(spec("a", 6), spec("b", 7), spec("c", 4))
    stage.handle(RequestArrived(1, "a"))
    ready(stage, "a")
    stage.handle(RequestFinished(1))
    stage.handle(RequestArrived(2, "b"))
    ledger = stage.core.ledger
    assert (ledger.memory.free(), Outlook(ledger).free) == ({"gpu": 4}, {"gpu": 3})
    assert Outlook(ledger).shortfall(ledger.models["c"], []) == {"gpu": 1}
    assert Outlook(ledger).shortfall(ledger.models["c"], [ledger.models["a"]]) == {}
