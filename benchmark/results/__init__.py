"""Results from MLPerf HPC OpenFold logs, anybody's: read, compared with the reference convergence points, told in tables and pictures."""
