"""Part III: one guide that steers any generator by constraints."""
