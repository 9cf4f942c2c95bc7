"""Overview: is it learning, is it connected, is the model any good, what does it cost, what needs me."""
