"""`submit` and `describe-system`: assemble and check an MLCommons submission."""
