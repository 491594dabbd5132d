import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_router.engines.parameters import (
    Parameter,
    ParameterError,
    ParameterKind,
    ParameterTable,
    ParameterValue,
    arguments_of,
    is_reserved,
    table_of,
)

TABLE: ParameterTable = table_of(
    [
        Parameter(name="ctx-size", kind=ParameterKind.INTEGER, aliases=("c",)),
        Parameter(name="poll", kind=ParameterKind.INTEGER, minimum=0, maximum=100),
        Parameter(name="gpu-layers", kind=ParameterKind.INTEGER, choices=("auto", "all")),
        Parameter(name="temp", kind=ParameterKind.NUMBER),
        Parameter(name="seed", kind=ParameterKind.INTEGER),
        Parameter(name="fa", kind=ParameterKind.CHOICE, choices=("on", "off", "auto")),
        Parameter(name="spec", kind=ParameterKind.CHOICE, choices=("a", "b"), is_list=True),
        Parameter(name="text", kind=ParameterKind.TEXT),
        Parameter(name="swa-full", kind=ParameterKind.FLAG),
        Parameter(name="mmap", kind=ParameterKind.FLAG, opposites=("no-mmap", "nm")),
        Parameter(name="host", kind=ParameterKind.TEXT),
        Parameter(name="x", kind=ParameterKind.TEXT, aliases=("api-key",)),
    ]
)


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        ({"ctx-size": 8192}, ("--ctx-size", "8192")),
        ({"ctx_size": -1}, ("--ctx-size", "-1")),
        ({"c": 1}, ("--ctx-size", "1")),
        ({"gpu-layers": "all"}, ("--gpu-layers", "all")),
        ({"temp": 0.5, "poll": 100}, ("--temp", "0.5", "--poll", "100")),
        ({"temp": 1}, ("--temp", "1")),
        ({"seed": 2**32 - 1}, ("--seed", "4294967295")),
        ({"fa": True}, ("--fa", "on")),
        ({"fa": "auto"}, ("--fa", "auto")),
        ({"spec": ("a", "b")}, ("--spec", "a,b")),
        ({"spec": "b,a"}, ("--spec", "b,a")),
        ({"text": ("x", 1, 2.5)}, ("--text", "x,1,2.5")),
        ({"text": "a b\n$(c)"}, ("--text", "a b\n$(c)")),
        ({"swa-full": True, "mmap": True}, ("--swa-full", "--mmap")),
        ({"swa-full": False, "mmap": False}, ("--no-mmap",)),
        ({"no-mmap": True}, ("--no-mmap",)),
        ({"nm": False}, ("--mmap",)),
        ({}, ()),
    ],
)
def test_parameters_become_arguments(
    parameters: dict[str, ParameterValue], arguments: tuple[str, ...]
) -> None:
    assert TABLE.check(parameters) == []
    assert TABLE.arguments(parameters) == arguments
    assert arguments_of(parameters, TABLE) == arguments


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"ctx-size": "8192"}, "a whole number"),
        ({"ctx-size": 1.5}, "a whole number"),
        ({"ctx-size": True}, "takes a value"),
        ({"ctx-size": 2**31}, "between -2147483648 and 2147483647"),
        ({"text": (("x",),)}, "not of lists"),
        ({"ctx-size": 10**500}, "between"),
        ({"ctx-size": (1, 2)}, "one value"),
        ({"poll": 101}, "between 0 and 100"),
        ({"gpu-layers": "some"}, "one of auto, all"),
        ({"temp": float("nan")}, "finite"),
        ({"temp": float("inf")}, "finite"),
        ({"temp": "hot"}, "a number"),
        ({"fa": "maybe"}, "one of on, off, auto"),
        ({"spec": "a,c"}, "one of a, b"),
        ({"spec": ("a,b",)}, "one of a, b"),
        ({"text": "--host"}, "dash"),
        ({"text": ("--host", "x")}, "dash"),
        ({"text": ("a,b", "c")}, "comma"),
        ({"text": ""}, "1 to"),
        ({"text": "x" * 10_000}, "1 to"),
        ({"text": "a\0b"}, "control"),
        ({"text": None}, "a text"),
        ({"text": {"a": 1}}, "a text"),
        ({"text": ("x",) * 300}, "at most"),
        ({"swa-full": 1}, "true or false"),
        ({"mmap": "yes"}, "true or false"),
        ({"host": "0.0.0.0"}, "cannot be set"),
        ({"x": "y"}, "cannot be set"),
        ({"api_key": "y"}, "cannot be set"),
        ({"nothing": 1}, "not an option"),
        ({"--ctx-size": 1}, "not an option"),
        ({"ctx-size 1 --host": 1}, "not an option"),
        ({"ctx-size": 1, "c": 2}, "same option"),
    ],
)
def test_what_cannot_be_set_is_said(parameters: dict[str, ParameterValue], problem: str) -> None:
    problems = TABLE.check(parameters)
    assert len(problems) == 1
    assert problem in problems[0]
    with pytest.raises(ParameterError):
        TABLE.arguments(parameters)


_ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["--host", "-m", "on", "auto", "a,b", "a"]),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.floats()), max_size=4).map(tuple),
)


@given(st.dictionaries(st.sampled_from([*TABLE.names, "host", "api-key", "--host"]), _ANY))
def test_no_value_ever_becomes_a_second_option(parameters: dict[str, ParameterValue]) -> None:
    try:
        arguments = list(TABLE.arguments(parameters))
    except ParameterError:
        assert TABLE.check(parameters)
        return
    while arguments:
        name = arguments.pop(0)
        parameter = TABLE.find(name.removeprefix("--"))
        assert parameter is not None
        assert name.startswith("--")
        if parameter.kind is not ParameterKind.FLAG:
            value = arguments.pop(0)
            assert value
            assert not value.startswith("-") or isinstance(float(value.split(",")[0]), float)
            subprocess.list2cmdline([value])


def test_without_a_table_parameters_are_taken_as_they_are() -> None:
    given: dict[str, ParameterValue] = {"max_model_len": 10, "flag": True, "off": False, "t": "x"}
    assert arguments_of(given, None) == ("--max-model-len", "10", "--flag", "--t", "x")


@pytest.mark.parametrize(
    "parameters", [{"a b": 1}, {"--a": 1}, {"": 1}, {"a": "--b"}, {"a": float("nan")}]
)
def test_without_a_table_nothing_is_injected_either(parameters: dict[str, ParameterValue]) -> None:
    with pytest.raises(ParameterError, match="parameters"):
        arguments_of(parameters, None)


def test_reserved_names_are_reserved_whatever_the_engine() -> None:
    assert all(map(is_reserved, ("host", "port", "model", "api-key", "some-file", "hf-x", "rpc")))
    assert not any(map(is_reserved, ("ctx-size", "profile", "cache-type-k", "monkey", "half")))
