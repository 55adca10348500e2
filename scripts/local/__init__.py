"""The bundle on one machine: what stands in for AWS, and what makes, feeds and tests it."""
