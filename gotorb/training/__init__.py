"""Networks: how they are built, trained, tuned, stored, exported, and asked for scores and posteriors."""
