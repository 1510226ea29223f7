"""Numbers to verdicts: nothing here knows of runs, files or networks."""
