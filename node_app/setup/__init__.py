"""First run: from what a person answers to a node.toml that was tested, step by step."""
