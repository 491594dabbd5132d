"""A stand-in for llama-server that can misbehave in every way; see ``__main__``."""
