from llama_router.core.machine import Core
from llama_router.core.settings import CoreSettings


def test_without_settings_memory_is_not_looked_at_and_nothing_times_out() -> None:
    settings = Core().ledger.settings
    assert settings == CoreSettings()
    assert (settings.budgets, settings.max_loaded, settings.max_queue_s) == ((), 0, 0.0)
