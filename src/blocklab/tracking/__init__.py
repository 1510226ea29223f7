"""Trackers: what runs come to, told to TensorBoard, W&B, MLflow or Trackio beside our own files."""
