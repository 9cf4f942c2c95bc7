"""How the deltas of a step become one vector: the mean, or a rule that bears some of them lying; one file a paper."""
