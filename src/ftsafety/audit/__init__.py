"""Audits of a model that somebody has already: against its base model, without any training (docs/audit.md).

pair     what MODEL and BASE of the call mean: entries of the catalogue, and the study that asks them
lines    each number against its threshold: passed, failed, or undecided
card     what a person or a model card shows of it
command  the call from end to end, and its exit code
"""
