"""Part I: the metrics behind `evaluate`, one idea per file, per crystal first."""
