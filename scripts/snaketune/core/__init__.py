"""The ground floor: errors, files, terminal, pages and paths. Imports nothing of the project."""
