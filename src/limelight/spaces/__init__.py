"""Observation and action spaces: packed composites, images, descriptions."""
