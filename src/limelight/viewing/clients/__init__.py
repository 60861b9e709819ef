"""Loggers by name: services that keep the metrics, settings, videos and agents of many runs."""
