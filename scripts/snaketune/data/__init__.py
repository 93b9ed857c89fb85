"""From rows in files to packed token ids with a loss mask. Imports no torch."""
