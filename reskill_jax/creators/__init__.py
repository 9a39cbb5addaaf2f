"""Where new skills come from: episodes, the reservoir, and creators."""
