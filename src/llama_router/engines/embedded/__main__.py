"""Runs the embedded engine."""

import sys

from llama_router.engines.embedded.serve import main

if __name__ == "__main__":
    main(sys.argv[1:])
