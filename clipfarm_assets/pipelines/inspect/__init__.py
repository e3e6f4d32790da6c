"""What is known of a deployment, gathered by plain functions; only `retry` changes anything."""
