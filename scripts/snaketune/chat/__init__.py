"""Chat with a model: in the terminal, line by line, or one prompt at a time. Imports no torch."""
