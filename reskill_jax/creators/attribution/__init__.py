"""Which step made an episode fail: evidence of steps, small models of it, blame for proposals."""
