"""``python -m llama_router`` is ``llama-router``."""

from llama_router.cli.entry import main

main()
