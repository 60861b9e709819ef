"""The views of a run: progress display, log files, report with plots, and videos."""
