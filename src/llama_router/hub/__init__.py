"""The Hugging Face hub: what is there, and how its files come into the standard cache.

Own code on aiohttp: the official library drops what it has of a file when a download ends early.
"""
