"""
Metrics of one drive, their means with intervals, the checks that a run is real, and the report.
"""
