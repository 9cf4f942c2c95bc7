"""First run: a form, and what each step of it came to."""
