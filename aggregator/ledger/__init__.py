"""What the aggregator knows for certain: contributions in order, what became of them, checkpoints of the fold."""
