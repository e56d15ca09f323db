"""Tables and plots of MLPerf HPC OpenFold logs, compared with the reference convergence points."""
