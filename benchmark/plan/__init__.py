"""`python -m benchmark plan`: predict time, memory and cost of trainings and predictions."""
