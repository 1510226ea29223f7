"""Run folders -> rows over seeds: statistics, intervals over images, judged claims."""
