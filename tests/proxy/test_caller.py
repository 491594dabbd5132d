from llama_router.proxy.caller import ANYBODY, Caller


def test_nobody_in_particular_has_no_name_and_no_privilege() -> None:
    assert Caller() == ANYBODY
    assert (ANYBODY.key, ANYBODY.priority, ANYBODY.is_batch) == ("", 0, False)
