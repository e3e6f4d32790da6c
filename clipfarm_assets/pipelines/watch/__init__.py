"""What changed outside that runs should know of; looked at by sensors, and left as it is."""
