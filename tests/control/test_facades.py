import inspect

import pytest

from llama_router.control import facades
from llama_router.runtime.bridge_config import ConfigBridge
from llama_router.runtime.bridge_downloads import DownloadsBridge
from llama_router.runtime.keys import Keys

OFFERED = {
    facades.ConfigFacade: ConfigBridge,
    facades.SettingsFacade: ConfigBridge,
    facades.ProfilesFacade: ConfigBridge,
    facades.DownloadsFacade: DownloadsBridge,
    facades.KeysFacade: Keys,
}


@pytest.mark.parametrize("facade", OFFERED)
def test_the_runtime_offers_all_that_is_promised(facade: type[object]) -> None:
    for name, promised in inspect.getmembers(facade, inspect.isfunction):
        if not name.startswith("_"):
            offered = getattr(OFFERED[facade], name)
            takes = inspect.signature(offered).parameters
            assert takes == inspect.signature(promised).parameters, name
            assert inspect.iscoroutinefunction(offered), name
