"""What a deployment predicts with: the registry, and the predictor bound to it."""
