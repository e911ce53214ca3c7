"""Ablation studies: what is compared, the queue and its workers, statistics and the report."""
