"""Base models: fetched and converted to Hugging Face format; checkpoints of other tools read."""
