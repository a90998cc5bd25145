"""Files of others as rows of ours: tables of any kind, training rows, benchmark prompts."""
