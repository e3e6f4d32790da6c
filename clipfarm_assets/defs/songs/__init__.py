"""The song pipeline: segments -> splits, alignment and features -> fusion models -> comparison."""
