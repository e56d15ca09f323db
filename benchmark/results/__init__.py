"""Tables and plots of MLPerf HPC OpenFold logs of any submitter, and the archive of our results."""
