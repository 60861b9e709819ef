"""The runner on a Ray cluster: workers on any node, one learner."""
