"""The embedded engine: llama.cpp (xllamacpp) in a process of its own, run like llama-server.

Started as ``python -m llama_router.engines.embedded <llama-server's flags>``.
"""
