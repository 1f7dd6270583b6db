"""Code of this competition: models, inputs, losses and augmentations that recipes name.

A recipe reads `target: <this folder>.<module>:<name>`; the folder travels to Kaggle with the pack,
so import at module level only what Kaggle's image holds.
"""
