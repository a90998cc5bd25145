"""Fine-tuning: a short loop of our own over the libraries' models, adapters and ZeRO."""
