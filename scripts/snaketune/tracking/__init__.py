"""Tracking: local JSONL files first, MLflow second."""
