"""Configs and model folders of other programs: read, translated, and run or written down as ours.

``load_foreign`` runs llama-swap's ``config.yaml`` and llama-server's preset ``.ini`` as they are,
``load_any`` those and ours;
``read_foreign`` translates them for ``llama-router import``, which ``modelfile`` and ``lm_studio``
serve as well. ``report`` says what became of every key.
"""

from llama_router.config.importers.foreign import Foreign, load_any, load_foreign, read_foreign

__all__ = ["Foreign", "load_any", "load_foreign", "read_foreign"]
