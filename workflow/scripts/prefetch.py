"""Download what an entry of a catalogue names, at the commit in config/lock.yaml. Called by rule prefetch."""

from ftsafety.cli import run_for_file
from ftsafety.prepare import fetch_entry

if __name__ == "__main__":
    run_for_file(fetch_entry, __doc__)
