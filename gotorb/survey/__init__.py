"""Sources of images and detections."""
