"""What a skill is: its text, its trigger, the bank of skills as arrays, assertions, SKILL.md."""
