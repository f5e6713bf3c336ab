"""Part I: crystals as tensors, their symmetry, files and data sets."""
