"""Part II: networks that predict properties, for guides and surrogates to ask."""
