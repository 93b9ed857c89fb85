"""Talk to a model: in the terminal, line by line, or one-shot from a script. Imports no torch."""
