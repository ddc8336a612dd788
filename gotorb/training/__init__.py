"""Networks: building, training, tuning, storage, export, scores and posteriors."""
