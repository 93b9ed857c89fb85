"""Scores of answers, confidence intervals, and which differences are significant."""
