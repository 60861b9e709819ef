"""The search for settings: trials in processes of their own, a ranking on fresh seeds, and the preset that it finds."""
