"""Kept apart from `model.py`, so that the config can name it without importing torch."""

#: Changes whenever the same seed would give other base-model weights.
MODEL_VERSION = 1
