"""llama-router: one endpoint in front of all of a person's local models."""

__version__ = "0.1.0"
