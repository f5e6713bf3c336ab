"""Part III: what a crystal must be, and how that steers any generator."""
