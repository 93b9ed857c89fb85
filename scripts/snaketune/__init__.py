"""SnakeTune's library: what the stage programs in scripts/ are thin over.

Nothing in here knows about Snakemake. `experiment` and `data` import no torch, so that a dry run
stays near one second.
"""
