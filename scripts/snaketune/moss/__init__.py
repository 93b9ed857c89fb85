"""MOSS's plugins: commands that a model tuned on MOSS-003 writes, executed before it answers."""
