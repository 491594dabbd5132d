"""The real core under virtual time: replayed traces, compared policies, swarms of faults."""
