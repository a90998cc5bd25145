"""This process's place among the ranks, as the launcher tells it. Light: imports no torch."""

import os


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))
