"""Diagnosis of a run from its files: rules, each with its evidence, a likely cause and a setting to try."""
