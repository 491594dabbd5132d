import pytest

from llama_router.config.importers import llama_swap_macros
from llama_router.config.importers.llama_swap_macros import (
    MacroError,
    Macros,
    check_macro,
    go_text,
)


def test_macros_use_those_defined_before_them() -> None:
    macros = Macros((("ctx", 4096), ("args", "--ctx-size ${ctx}"), ("all", "${args} ${args}")))
    assert macros.expand("x ${all}") == "x --ctx-size 4096 --ctx-size 4096"
    with pytest.raises(MacroError, match=r"defined before it"):
        Macros((("first", "${second}"), ("second", "2"))).expand("${first}")


def test_a_models_own_macro_takes_the_place_of_the_files() -> None:
    macros = Macros((("ctx", 4096), ("args", "-c ${ctx} -a ${MODEL_ID}"))).of_model(
        "m", {"ctx": 8192, "own": "${args}!"}
    )
    assert macros.expand("${own}") == "-c 8192 -a m!"


def test_a_value_that_is_one_macro_keeps_its_type() -> None:
    macros = Macros((("temp", 0.7), ("on", True), ("n", 3), ("again", "${n}")))
    value = ["${temp}", "${on}", {"${n}": "${again}"}, "t=${temp} ${on}"]
    assert macros.expand(value) == [0.7, True, {"${n}": 3}, "t=0.7 true"]


def test_what_is_known_later_stays_where_it_has_a_meaning() -> None:
    macros = Macros((("engine", "x --port ${PORT} ${env.HOME}"),))
    assert macros.expand("${engine}", runtime=("PORT",)) == "x --port ${PORT} ${env.HOME}"
    for text, said in (
        ("${PORT}", "only models"),
        ("${PID}", "only cmdStop"),
        ("${nope}", "unknown macro ${nope}"),
    ):
        with pytest.raises(MacroError) as caught:
            macros.expand(text)
        assert said in str(caught.value)


def test_macros_of_macros_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_swap_macros, "EXPANDED_MAX_CHARS", 1000)
    entries = [("m0", "0123456789")]
    entries += [(f"m{i}", f"${{m{i - 1}}}${{m{i - 1}}}") for i in range(1, 40)]
    with pytest.raises(MacroError, match="longer than 1000"):
        Macros(tuple(entries)).expand("${m39}")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "1"), ("a b", "1"), ("x" * 64, "1"), ("m", "a ${m}"), ("m", [1]), ("m", None)],
)
def test_what_llama_swap_refuses_as_a_macro_is_refused(name: str, value: object) -> None:
    with pytest.raises(MacroError):
        check_macro(name, value)


def test_numbers_are_written_as_go_writes_them() -> None:
    numbers = (1e6, 1234567.0, 100000.0, 1e21, 1e-5, 0.0001, -2.5, 0.0, 16384.0, True, 7)
    assert " ".join(map(go_text, numbers)) == (
        "1e+06 1.234567e+06 100000 1e+21 1e-05 0.0001 -2.5 0 16384 true 7"
    )
