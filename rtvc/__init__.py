"""Real-time, one-shot, streaming voice conversion."""
