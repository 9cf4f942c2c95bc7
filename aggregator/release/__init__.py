"""What is published: every node adds the same bytes to the same bits."""
