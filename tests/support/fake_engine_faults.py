"""The fake engine's faults by name; it ships with the stress tool."""

from llama_router.stress.fake_engine.faults import FAULTS

__all__ = ["FAULTS"]
