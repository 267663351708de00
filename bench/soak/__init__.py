"""Hours of everyday work: memory and latency over time, and whether they stay as they are."""
