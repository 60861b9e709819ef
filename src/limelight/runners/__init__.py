"""Runners decide who collects, who learns and when they meet."""
