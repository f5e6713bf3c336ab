"""How the shipped data sets are made: candidates, shards, assembly."""
