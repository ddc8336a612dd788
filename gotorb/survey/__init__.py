"""Where images and detections come from."""
