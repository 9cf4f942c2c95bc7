"""Methods beside one another: tasks, their data, and the scenarios that the tables are made of."""
