"""Measure how fine-tuning compromises the safety of chat models, and what prevents it."""
