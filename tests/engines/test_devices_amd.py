from pathlib import Path

from llama_router.engines.devices_amd import find_cards
from llama_router.engines.devices_nvidia import Card


def make_card(root: Path, name: str, place: str, **files: str) -> None:
    device = root / "devices" / place
    device.mkdir(parents=True)
    for file, text in files.items():
        (device / file).write_text(text + "\n")
    card = root / "class" / name
    card.mkdir(parents=True)
    (card / "device").symlink_to(device)


def test_cards_are_numbered_by_their_places(tmp_path: Path) -> None:
    memory = {"vendor": "0x1002", "mem_info_vram_total": "100", "mem_info_vram_used": "30"}
    make_card(tmp_path, "card0", "0000:0c:00.0", **memory, product_name="Radeon Pro")
    make_card(tmp_path, "card1", "0000:03:00.0", **{**memory, "mem_info_vram_used": "0"})
    make_card(tmp_path, "card2", "0000:01:00.0", vendor="0x10de")
    make_card(tmp_path, "card3", "0000:02:00.0", vendor="0x1002", mem_info_vram_total="odd")
    (tmp_path / "class" / "card0-DP-1").mkdir()

    assert find_cards(tmp_path / "class") == (
        Card("rocm0", 100, 100, ""),
        Card("rocm1", 100, 70, "Radeon Pro"),
    )


def test_no_such_folder_means_no_cards(tmp_path: Path) -> None:
    assert find_cards(tmp_path / "missing") == ()
