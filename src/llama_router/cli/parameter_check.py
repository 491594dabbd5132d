"""What ``config check`` and ``doctor`` say of options of engines, before any model is loaded."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_router.config.load import LoadedConfig
    from llama_router.config.problems import Problem


def parameter_problems(loaded: "LoadedConfig") -> "list[Problem]":
    """Return what the engines here will refuse of the config's ``parameters``.

    They are asked, which takes no time where nothing is set; none is said of one that is not here.
    """
    import asyncio

    from llama_router.engines.kinds import find_llama_server
    from llama_router.engines.parameter_tables import ParameterTables
    from llama_router.runtime.parameter_doubts import parameter_issues

    found = find_llama_server(Path(sys.argv[0]).absolute(), search_path=os.environ.get("PATH"))

    async def issues() -> "list[Problem]":
        tables = ParameterTables(os.environ, found)
        return [
            loaded.document.problem(one) for one in await parameter_issues(loaded.config, tables)
        ]

    return asyncio.run(issues())
