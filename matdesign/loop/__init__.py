"""Part V: oracles, the hull of known compounds, campaigns and their store."""
