"""Study files to begin with, as `optnas new` writes them: each runs as it stands."""
