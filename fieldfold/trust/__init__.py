"""Who somebody is and whether to believe it: certificates, TLS, and in words what is wrong with them."""
