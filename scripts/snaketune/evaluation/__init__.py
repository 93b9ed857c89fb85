"""Generation, figures and reports on finished models."""
