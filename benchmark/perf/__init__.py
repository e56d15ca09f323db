"""`perf`: performance measurements, one module each.

Where a measurement compares two implementations, it times both in the same run and reports the
median, minimum and maximum.
"""
