"""The broker beside the aggregator: its certificates, its configuration, its access rules, and how it is started."""
