"""Raw bytes to unit vectors: the only place that knows a model."""
