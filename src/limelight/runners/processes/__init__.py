"""The asynchronous runner: worker processes over shared memory."""
