"""What people look at: loggers, plots, the report, videos."""
