"""The metrics behind `evaluate`: one idea per file, per crystal first."""
