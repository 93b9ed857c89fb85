"""Base models, adapters, checkpoints and merging."""
