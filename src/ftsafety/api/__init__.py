"""One client for paid and local OpenAI-compatible endpoints: every reply is stored before anything else."""
