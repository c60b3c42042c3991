"""report.html of a run: one file, from what the run folder holds."""
