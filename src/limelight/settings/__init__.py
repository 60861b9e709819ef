"""Settings: the dataclasses, their text forms, and the rules between them."""
