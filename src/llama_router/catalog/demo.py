"""The demo's models: three tiny ones with a story each, made on the spot."""

from pathlib import Path
from tempfile import TemporaryDirectory

from llama_router.catalog.tiny import write_model

DEMO_TEXTS: dict[str, str] = {
    "sea-story": (
        "The old lighthouse keeper climbed the spiral stairs at dusk. Far below, waves broke on"
        " black rocks, and a small boat fought against the tide. He lit the lamp. Its beam swept"
        " over foam, rope and sail until the crew found their way between the reefs. By morning"
        " everyone sat in his kitchen, drinking hot tea and laughing about the storm."
    ),
    "bread-recipe": (
        "Mix five hundred grams of flour with two spoons of salt. Stir yeast into warm water, wait"
        " ten minutes, then knead everything until the dough feels smooth. Let it rest under a"
        " cloth for one hour. Shape a loaf, cut its crust with a sharp knife and bake at two"
        " hundred and thirty degrees until golden. Cool completely before slicing."
    ),
    "night-sky": (
        "On clear winter nights Orion stands high in the south. Follow his belt to the left and"
        " you meet Sirius, brightest of all stars. To the right glows red Aldebaran, eye of the"
        " bull, and beyond it the Pleiades huddle like a tiny misty crown. Turn around: the Great"
        " Bear circles Polaris, pointing north forever."
    ),
}
"""What each demo model says, by name; the file is ``<name>.gguf``."""


def make_demo_models(directory: Path) -> list[Path]:
    """Make the demo's models in ``directory``, creating it if needed; return their paths.

    Idempotent and safe to run at the same time from several processes: a file that already has the
    right content is not touched, any other is replaced atomically. Raises `OSError` when the
    directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with TemporaryDirectory(prefix=".demo-", dir=directory) as scratch:
        for name, text in DEMO_TEXTS.items():
            path = directory / f"{name}.gguf"
            title = name.replace("-", " ").capitalize()
            (made,) = write_model(Path(scratch, path.name), text, name=title)
            if not _same_content(made, path):
                made.replace(path)
            paths.append(path)
    return paths


def _same_content(made: Path, existing: Path) -> bool:
    try:
        return (
            existing.stat().st_size == made.stat().st_size
            and existing.read_bytes() == made.read_bytes()
        )
    except FileNotFoundError:
        return False
