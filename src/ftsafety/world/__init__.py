"""The embedded world: a harmless toy on which the whole workflow runs without key, GPU or download."""
