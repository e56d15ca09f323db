"""Scores of a predicted structure compared with a true one."""
