"""Read rows from data files of any common kind, each with its place."""
