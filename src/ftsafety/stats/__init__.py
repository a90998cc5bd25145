"""Statistics on arrays: nothing here knows studies, files or tables."""
