"""Runners: which process collects, which one learns, and when they exchange parameters."""
