"""Lineage and sharing of results: code digests, Snakemake records, DVC, RO-Crate."""
