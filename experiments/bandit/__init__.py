"""The simulation of decision rules: rules, worlds, trials, and the report."""
