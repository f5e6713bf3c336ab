"""All parts: exercises with checks, toys with known answers, what chapters share."""
