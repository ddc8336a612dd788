"""Labels of detections: rules, synthetic sources, annotators' lists, archives, and cleaning."""
