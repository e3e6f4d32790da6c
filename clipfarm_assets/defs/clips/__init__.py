"""The clip pipeline: metadata -> index -> embeddings -> fused shards -> manifest."""
