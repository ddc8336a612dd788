"""Constants of nature and of statistics that several rooms use."""

GAUSS_K = 0.01720209895
"""Gaussian gravitational constant [au^1.5 / (day Msun^0.5)] (IAU 1976)."""
MJD_ZERO = 2_400_000.5
"""Julian date of MJD 0 [day]."""
DAY_S = 86_400.0
"""Seconds of a day."""
MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
SIGMA_TO_FWHM = 2.354820045
"""Full width at half maximum of a normal distribution over its standard deviation."""
SCORE_DIGITS = 6
"""Decimals of scores in files."""
