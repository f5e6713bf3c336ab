"""Part II: five families of generators on one sampling loop."""
