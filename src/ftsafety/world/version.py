"""Kept apart from `model.py`, so that the config can name it without importing torch."""

#: Changes whenever the same seed would give other base-model weights.
MODEL_VERSION = 1
#: Changes whenever the vision tower would have other weights, or see pictures otherwise.
TOWER_VERSION = 1
#: Changes whenever the embedded world's provider would fine-tune to other weights.
PROVIDER_VERSION = 1
