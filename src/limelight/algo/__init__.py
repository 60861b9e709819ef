"""The update: rollouts, returns, losses, the learner and its optimizer."""
