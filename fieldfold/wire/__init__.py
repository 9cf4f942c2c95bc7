"""Messages, topics, chunking and limits. Does no input or output and does not know which side it serves."""
