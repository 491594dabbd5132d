from pathlib import Path

from tests.config.importers.swaps import FILES, faults, model, of, read


def test_groups_are_theirs_and_models_without_one_take_turns(tmp_path: Path) -> None:
    foreign = read(FILES / "llama-swap.yaml")
    groups = foreign.config.groups
    assert (groups["forever"].swap, groups["forever"].persistent) == (False, True)
    assert (groups["beside"].swap, groups["beside"].exclusive) == (False, False)
    assert (groups["(default)"].swap, groups["(default)"].exclusive) == (True, True)
    assert model(foreign, "always")["group"] == "forever"
    bare = of(tmp_path, "models:\n  a: {cmd: 'x ${PORT}'}\n  b: {cmd: 'x ${PORT}'}\n")
    assert {entry["group"] for entry in bare.native.content["models"]} == {"(default)"}
    early = read(FILES / "llama-swap-early.yaml")
    assert [entry["group"] for entry in early.native.content["models"]] == [
        *("together", "together", "(default)")
    ]
    assert early.config.models[0].filters.strip_params == ("temperature",)


def test_a_matrix_is_theirs_wherever_it_stands() -> None:
    matrix = read(FILES / "llama-swap-matrix.yaml").config.matrix
    assert matrix is not None
    assert matrix.vars == {"g": "gemma", "v": "voice"}
    assert matrix.evict_costs == {"v": 50, "qwen": 3}
    assert matrix.sets == {"standard": "(g | qwen) & v", "all": "+standard | alone"}


def test_a_peer_that_cannot_be_reached_is_left_out_and_told() -> None:
    foreign = read(FILES / "llama-swap.yaml")
    assert list(foreign.config.peers) == ["elsewhere"]
    (note,) = (n for n in foreign.report.lost if n.key == "peers.unreachable.proxy")
    assert "Tailcat" in note.why


def test_a_member_of_two_groups_and_two_keys_that_mean_one_are_faults(tmp_path: Path) -> None:
    head = "models:\n  m:\n    cmd: x ${PORT}\n"
    twice = "groups: {a: {members: [m]}, b: {members: [m]}}\n"
    assert "6" not in faults(tmp_path, head + twice)
    assert "groups.b.members[0]: m is a member of a already" in faults(tmp_path, head + twice)
    same = "    macros: {x: id, y: id}\n    filters: {setParamsByID: {'${x}': {}, '${y}': {}}}\n"
    assert "is the second key to mean id" in faults(tmp_path, head + same)
