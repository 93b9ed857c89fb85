"""What Snakemake would do, in words: why each stage runs, how long, what it needs. No torch."""
