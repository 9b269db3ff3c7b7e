"""Competitors: each module answers a request in a process, and mostly an environment, of its own."""
