"""Scheduling policies, one file each: who is next, and what has to go for it."""
